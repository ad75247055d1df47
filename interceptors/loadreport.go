package interceptors

import (
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// loadReport reads what an endpoint reports of its load in trailers, which the
// caller gets as they are. It returns false where there is nothing to read.
func loadReport(trailer metadata.MD) (r balancer.LoadReport, ok bool) {
	// grpc-go has decoded the one already.
	if v := trailer[policy.LoadReportBinary]; len(v) > 0 {
		return policy.ParseLoadReport(v[len(v)-1])
	}
	if v := trailer[policy.LoadReportText]; len(v) > 0 {
		return policy.ParseLoadReportText(v[len(v)-1])
	}
	return balancer.LoadReport{}, false
}
