module github.com/outrigger-rpc/outrigger/bench/sla

go 1.26.0

require (
	github.com/DataDog/sketches-go v1.4.8
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/outrigger-rpc/outrigger v0.0.0
)

require google.golang.org/protobuf v1.36.12 // indirect

replace github.com/outrigger-rpc/outrigger => ../..
