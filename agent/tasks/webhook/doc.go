// Package webhook signs HTTP requests as Standard Webhooks say
// (https://www.standardwebhooks.com), so that who receives one can tell that it
// came from us, unchanged and lately.
//
//	secrets, err := webhook.Open("/etc/outrigger/hook.secret")
//	…
//	headers, err := secrets.Sign(taskID, time.Now(), body)
//	headers.Set(request.Header)
//
// A request gets three headers: webhook-id, the same in every attempt, which is
// what a receiver tells repetitions by; webhook-timestamp, the time of this
// attempt; and webhook-signature, "v1," and the base64 of HMAC-SHA256 over
// "id.timestamp.body". While a secret is replaced there are two of them, and the
// request carries a signature by each. Signatures by key pairs (v1a) aren't made.
//
// Verify is the receiver's side.
package webhook
