package api

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func someDuration(t *rapid.T, label string) *durationpb.Duration {
	if rapid.Bool().Draw(t, label+" unset") {
		return nil
	}
	return &durationpb.Duration{
		Seconds: rapid.SampledFrom([]int64{0, -1, 1, -2, 3599, 3600, 3601, 31535999, 31536000, 31536001, 1 << 40}).Draw(t, label),
		Nanos:   rapid.SampledFrom([]int32{0, 0, 0, 1, -1, 999_999_999, 1_000_000_000}).Draw(t, label+" nanos"),
	}
}

// TestGuardHasTheRulesOfTheProto: what Acquire and Report refuse by the rules of
// resilience.proto Guard refuses too, and nothing else.
func TestGuardHasTheRulesOfTheProto(t *testing.T) {
	long := strings.Repeat("é", 1024)
	names := []string{"", "greeter", "/", "/a.B/C", "a/b", long, long + "x", "/" + long, "/" + long[2:], "/a\nb", "/ä"}
	t.Run("acquire", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			q := &outriggerv1.AcquireRequest{
				Service: rapid.SampledFrom(names).Draw(t, "service"), Method: rapid.SampledFrom(names).Draw(t, "method"),
				Timeout: someDuration(t, "timeout"), Wait: someDuration(t, "wait"), Lease: someDuration(t, "lease"),
				Criticality: outriggerv1.Criticality(rapid.Int32Range(-1, 6).Draw(t, "criticality")), Metadata: map[string]string{},
			}
			for range rapid.SampledFrom([]int{0, 1, 32, 33}).Draw(t, "metadata") {
				key := rapid.SampledFrom([]string{"x-", "X", "", "ä", long}).Draw(t, "key")
				if key == "x-" {
					key += rapid.StringMatching(`[a-z0-9_.]{0,126}`).Draw(t, "rest")
				}
				q.Metadata[key] = rapid.SampledFrom([]string{"", "v", strings.Repeat("é", 4096), strings.Repeat("é", 4097)}).Draw(t, "value")
			}
			if err, wrong := (rules{}).Validate(q), checkAcquire(q); (err != nil) != (wrong != "") {
				t.Fatalf("the proto says %v, Guard says %q", err, wrong)
			}
		})
	})
	t.Run("report", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			q := &outriggerv1.ReportRequest{
				PermitId: make([]byte, 16), Code: rapid.Int32Range(-1, 18).Draw(t, "code"),
				Progress: outriggerv1.Progress(rapid.Int32Range(-1, 5).Draw(t, "progress")),
				Pushback: someDuration(t, "pushback"), Latency: someDuration(t, "latency"), Final: rapid.Bool().Draw(t, "final"),
			}
			if rapid.Bool().Draw(t, "load") {
				number := rapid.SampledFrom([]float64{0, 0.5, 1e300, -1e-9, math.NaN(), math.Inf(1), math.Inf(-1)})
				q.LoadReport = &outriggerv1.LoadReport{
					ApplicationUtilization: number.Draw(t, "application"), CpuUtilization: number.Draw(t, "cpu"), RpsFractional: number.Draw(t, "rps"), Eps: number.Draw(t, "eps"),
				}
			}
			if err, wrong := (rules{}).Validate(q), checkReport(q); (err != nil) != (wrong != "") {
				t.Fatalf("the proto says %v, Guard says %q", err, wrong)
			}
		})
	})
	t.Run("renewal", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			q := &outriggerv1.GuardRenewal{PermitId: make([]byte, 16), Lease: someDuration(t, "lease")}
			if err, wrong := (rules{}).Validate(q), checkLease(q.GetLease()); (err != nil) != (wrong != "") {
				t.Fatalf("the proto says %v, Guard says %q", err, wrong)
			}
		})
	})
}
