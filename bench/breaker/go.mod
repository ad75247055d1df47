module github.com/outrigger-rpc/outrigger/bench/breaker

go 1.26.0

replace github.com/outrigger-rpc/outrigger => ../..

require (
	github.com/eapache/go-resiliency v1.7.0
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/outrigger-rpc/outrigger v0.0.0
	github.com/sony/gobreaker/v2 v2.4.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/hashicorp/golang-lru/v2 v2.0.7 // indirect
)
