package guard

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-rpc/outrigger/agent/api"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// loopback serves an agent on TCP and returns its address.
func loopback(b *testing.B, p policy.Policy, endpoints ...string) string {
	h := &house{t: b}
	h.add("database", p, endpoints...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := api.New(api.Options{Origin: time.Now().Add(-time.Minute), Agent: h})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	b.Cleanup(func() {
		server.Shutdown(context.Background())
		<-served
	})
	return l.Addr().String()
}

// perPermit reports permits a second, and allocations a permit, of both sides
// together.
func perPermit(b *testing.B, permits int, do func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	do()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(permits)/took.Seconds(), "permits/s")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(permits), "allocs/permit")
}

func endpoints(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("10.0.0.%d:5432", i+1)
	}
	return all
}

// BenchmarkGuardBatches is the stream by itself, client and agent in one
// process, over loopback TCP: each message reports the permits of the one before
// and asks for as many. Run it with -cpu 1 for one core.
func BenchmarkGuardBatches(b *testing.B) { // budget: 10 µs a permit, both sides on one core
	for _, size := range []int{1, 64, 256} {
		for about, addresses := range map[string][]string{"resource": nil, "endpoints": endpoints(3)} {
			b.Run(fmt.Sprintf("%s/%d", about, size), func(b *testing.B) {
				conn, err := grpc.NewClient("passthrough:///"+loopback(b, policy.Default(), addresses...), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				stream, err := outriggerv1.NewResilienceServiceClient(conn).Guard(ctx)
				if err != nil {
					b.Fatal(err)
				}
				m := &outriggerv1.GuardRequest{}
				for i := range size {
					m.Acquires = append(m.Acquires, &outriggerv1.GuardAcquire{Tag: uint64(i + 1), Request: &outriggerv1.AcquireRequest{Service: "database", Method: "/orders"}})
				}
				reports := make([]*outriggerv1.GuardReport, size)
				for i := range reports {
					reports[i] = &outriggerv1.GuardReport{Request: &outriggerv1.ReportRequest{}}
				}
				perPermit(b, b.N, func() {
					for done := 0; done < b.N; done += size {
						if err := stream.Send(m); err != nil {
							b.Fatal(err)
						}
						for got := 0; got < size; {
							r, err := stream.Recv()
							if err != nil {
								b.Fatal(err)
							}
							for _, a := range r.GetAnswers() {
								if a.GetPermit() == nil {
									b.Fatal(a)
								}
								reports[got].Request.PermitId = a.GetPermit().GetId()
								got++
							}
						}
						m.Reports = reports
					}
				})
			})
		}
	}
}

// BenchmarkClient is the client with many goroutines, each of which acquires
// and reports.
func BenchmarkClient(b *testing.B) { // budget: 15 µs a permit, both sides on one core
	for _, goroutines := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
			client, err := Dial(loopback(b, policy.Default(), endpoints(3)...))
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			ctx, r := context.Background(), Request{Service: "database", Method: "/orders"}
			perPermit(b, b.N, func() {
				var left atomic.Int64
				left.Store(int64(b.N))
				var all sync.WaitGroup
				for range goroutines {
					all.Go(func() {
						for left.Add(-1) >= 0 {
							p, err := client.Acquire(ctx, r)
							if err != nil {
								b.Error(err)
								return
							}
							p.Done(nil)
						}
					})
				}
				all.Wait()
			})
		})
	}
}
