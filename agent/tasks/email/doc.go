// Package email sends e-mail through an SMTP server (RFC 5321), for tasks of the
// kind email.
//
//	sender, err := email.NewSender(email.Settings{
//		Address:      "smtp.example.com:587",
//		Username:     "shop",
//		PasswordFile: "/etc/outrigger/smtp.password",
//		From:         "Shop <shop@example.com>",
//	})
//	…
//	receipt, err := sender.Send(ctx, email.Message{
//		To: []string{"ada@example.org"}, Subject: "Welcome", Text: "Hello Ada",
//		MessageID: sender.MessageID(taskID), Date: submitted,
//	})
//	…
//	sender.Close()
//
// A mail that is sent again after a crash has the Message-ID and Date of the
// first time, since both come from its task: receivers that look for duplicates
// recognize it.
//
// # What can be refused, and by whom
//
// Validate says what is wrong with a message before anything is stored. What
// fails later is an *Error, which says at which stage, in the server's words and
// codes, and whether another attempt makes sense: what the server thinks of the
// mail counts (5xx for good, 4xx for now), whereas a server that can't be
// reached, fails to prove itself by TLS or refuses the login says nothing about
// the mail, so that mails wait until it is mended.
//
// Some recipients may be refused while others are accepted. Then the mail goes to
// those that are, and the Receipt lists the rest: Receipt.Deferred is for
// Message.Only, with which another attempt reaches no one twice.
//
// # Connections
//
// A Sender keeps a few connections and lends each to one mail at a time. One that
// the server closed in the meantime is replaced unseen. The password and CA
// files are read for each new connection, so that a change needs no restart.
//
// # Templates
//
// Templates make subject and bodies out of JSON. Apps may bring their own with a
// task, so they run on a leash: templates.go says what bounds them.
package email
