// Package breaker compares the closed path of circuit breakers: Outrigger's
// beside sony/gobreaker, failsafe-go and eapache/go-resiliency, in one run. A
// module of its own: the peers never reach users.
//
//	cd bench/breaker && go test -bench . -benchmem
package breaker
