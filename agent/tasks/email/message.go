package email

import "time"

// Limits of a message.
const (
	// MaxRecipients is how many To, Cc and Bcc may have together.
	MaxRecipients = 300
	// MaxSubject is the longest subject, in bytes.
	MaxSubject = 998
	// MaxAttachments is how many attachments there may be.
	MaxAttachments = 20
	// MaxContent is how many bytes Text, HTML and attachments may have together.
	MaxContent = 16 << 20
	// MaxHeaders is how many extra headers there may be.
	MaxHeaders = 50
	// maxHeaderValue is the longest value of an extra header, in bytes.
	maxHeaderValue = 4096
)

// Message is a mail. Addresses are as in a mail's header, one each:
// "ada@example.org" or "Ada <ada@example.org>". Domains may be international;
// what stands in front of the "@" must be ASCII.
type Message struct {
	// From is the sender. Empty: Settings.From.
	From string
	// ReplyTo is where answers go. Empty: to the sender.
	ReplyTo string
	// To, Cc and Bcc are the recipients, at least one in all. Only the server
	// gets to know those in Bcc.
	To, Cc, Bcc []string
	// Only, if not empty, restricts who gets the mail to those of its recipients:
	// bare addresses, as Receipt.Deferred returns them. The mail is the same.
	Only []string
	// Subject may be empty.
	Subject string
	// Text and HTML are the body; at least one of them. With both, readers choose.
	Text, HTML string
	// Attachments go with it.
	Attachments []Attachment
	// Headers are further headers, of those that AllowedHeader allows.
	Headers map[string]string
	// MessageID is the mail's identity, without angle brackets, the same in each
	// attempt; Sender.MessageID makes it. Send requires it.
	MessageID string
	// Date is when the mail was written: when its task was submitted. Send
	// requires it.
	Date time.Time
}

// Attachment is a file that goes with a mail.
type Attachment struct {
	// Name is what readers save it as: no folder in it.
	Name string
	// ContentType is its type, such as "application/pdf". Empty:
	// application/octet-stream.
	ContentType string
	// Content is what is in it.
	Content []byte
}

// Receipt says what became of a mail that the server accepted.
type Receipt struct {
	// MessageID is the mail's.
	MessageID string
	// Response is how the server accepted it, often with the name that its log
	// knows the mail by.
	Response string
	// Accepted are the recipients, as bare addresses.
	Accepted []string
	// Refused are those that the server would not take, each with its reason.
	Refused []Refusal
}

// Deferred are the refused recipients that another attempt may reach.
func (r Receipt) Deferred() []string {
	var list []string
	for _, refusal := range r.Refused {
		if !refusal.Permanent {
			list = append(list, refusal.Address)
		}
	}
	return list
}
