// Package health asks endpoints how they are: by the gRPC health service, by
// HTTP, by connecting or by a TLS handshake, over the same transport that their
// calls take.
//
//	checker := health.New(health.Options{Origin: origin})
//	checker.Follow(health.Service{Name: "greeter", Transport: t, Settings: settings, Endpoints: endpoints})
//	…
//	checker.Forget("greeter")
//	checker.Close()
//
// An endpoint is trusted until so many checks in a row failed, and trusted
// again after so many in a row passed (verdict.go). Checks are spread over
// their interval, come twice as often while there is doubt (pace.go), and at
// most Options.Concurrency of them run at a time. One goroutine waits for what
// falls due, and lives only while something is followed; a check runs on one of
// a few that live as long as there is something due.
package health
