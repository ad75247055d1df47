// Package interceptors compares what a unary call costs through grpc-go alone,
// through Outrigger's interceptors and through failsafe-go's, over an in-memory
// connection, in one run. A module of its own: the peers never reach users.
//
//	cd bench/interceptors && go test -bench . -benchmem
package interceptors
