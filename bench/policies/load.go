package main

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// answer is how one call ended.
type answer struct {
	took   time.Duration
	code   codes.Code
	reason string // of the agent, where it refused the call
}

var message = wrapperspb.Bytes(bytes.Repeat([]byte("x"), 100))

// call makes one call.
func call(ctx context.Context, cc *grpc.ClientConn) answer {
	began := time.Now()
	err := cc.Invoke(ctx, method, message, new(wrapperspb.BytesValue))
	return answer{time.Since(began), status.Code(err), reasonOf(err)}
}

// offer makes so many calls a second for a time, whatever becomes of them
// (open loop), over the connections in turn, and waits for them all.
func offer(ccs []*grpc.ClientConn, perSecond float64, length, deadline time.Duration) []answer {
	answers := make([]answer, int(perSecond*length.Seconds()))
	var group sync.WaitGroup
	began := time.Now()
	for i := range answers {
		time.Sleep(time.Until(began.Add(time.Duration(float64(i) / perSecond * float64(time.Second)))))
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			answers[i] = call(ctx, ccs[i%len(ccs)])
		})
	}
	group.Wait()
	return answers
}

// connect opens connections to an address, for calls of a service.
func connect(address, service string, n int, options ...grpc.DialOption) (ccs []*grpc.ClientConn, shut func() error, err error) {
	options = append([]grpc.DialOption{grpc.WithAuthority(service), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	var open closers
	for range n {
		cc, err := grpc.NewClient("passthrough:///"+address, options...)
		if err != nil {
			_ = open.close()
			return nil, nil, err
		}
		open.add(cc.Close)
		ccs = append(ccs, cc)
	}
	return ccs, open.close, nil
}

// reasonOf returns the ErrorInfo reason of an error.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// count returns how many answers are so.
func count(answers []answer, is func(answer) bool) int {
	n := 0
	for _, a := range answers {
		if is(a) {
			n++
		}
	}
	return n
}

// quantile is that of how long the answers took that are so; zero of none.
func quantile(answers []answer, q float64, is func(answer) bool) time.Duration {
	var took []time.Duration
	for _, a := range answers {
		if is(a) {
			took = append(took, a.took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

func good(a answer) bool { return a.code == codes.OK }
func all(answer) bool    { return true }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
