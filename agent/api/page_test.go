package api

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func itself(s string) string { return s }

func TestPagesMakeTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Given any list,
		all := rapid.SliceOfNDistinct(rapid.String(), 0, 30, itself).Draw(t, "all")
		slices.Sort(all)
		size := rapid.Int32Range(1, 31).Draw(t, "size")
		// when its pages are put together, while something else comes or goes
		// between two of them,
		passing := rapid.String().Draw(t, "passing")
		list := slices.Clone(all)
		var got []string
		for token := ""; ; {
			cut, next, err := page(list, itself, size, token)
			if err != nil {
				t.Fatal(err)
			}
			if len(cut) > int(size) {
				t.Fatalf("a page of %d, at most %d were asked for", len(cut), size)
			}
			got = append(got, cut...)
			if token = next; token == "" {
				break
			}
			list = slices.Clone(all)
			if rapid.Bool().Draw(t, "comes") && !slices.Contains(list, passing) {
				list = append(list, passing)
				slices.Sort(list)
			}
		}
		// then they are the list, each element once.
		if !slices.Contains(all, passing) {
			before := len(got)
			if got = slices.DeleteFunc(got, func(s string) bool { return s == passing }); before-len(got) > 1 {
				t.Fatalf("%q came %d times", passing, before-len(got))
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("%q, want %q", got, all)
		}
	})
}

func TestListsComeInPages(t *testing.T) {
	// Given 5 services with two endpoints each,
	h := newHouse(t)
	for i := range 5 {
		h.add(fmt.Sprintf("s%d", i), reference(policy.ScopeService))
	}
	// when they are listed four at a time,
	var breakers, endpoints, reports []string
	for token := ""; ; {
		p := must[*outriggerv1.ListBreakersResponse](t)(h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{PageSize: 4, PageToken: token}))
		for _, b := range p.GetBreakers() {
			breakers = append(breakers, b.GetName())
		}
		if token = p.GetNextPageToken(); token == "" {
			break
		}
	}
	for token := ""; ; {
		p := must[*outriggerv1.ListEndpointsResponse](t)(h.endpoints().ListEndpoints(h.context(), &outriggerv1.ListEndpointsRequest{PageSize: 4, PageToken: token}))
		for _, e := range p.GetEndpoints() {
			endpoints = append(endpoints, e.GetService()+" "+e.GetAddress())
		}
		if token = p.GetNextPageToken(); token == "" {
			break
		}
	}
	for token := ""; ; {
		p := must[*outriggerv1.ListReportsResponse](t)(h.reports().ListReports(h.context(), &outriggerv1.ListReportsRequest{PageSize: 4, PageToken: token}))
		for _, r := range p.GetReports() {
			reports = append(reports, r.GetService())
		}
		if token = p.GetNextPageToken(); token == "" {
			break
		}
	}
	// then all of them come, in order.
	want := []string{"s0", "s1", "s2", "s3", "s4"}
	if !slices.Equal(breakers, want) || !slices.Equal(reports, want) {
		t.Errorf("breakers %q, reports %q", breakers, reports)
	}
	if len(endpoints) != 10 || endpoints[0] != "s0 "+first || endpoints[9] != "s4 "+second || !slices.IsSorted(endpoints) {
		t.Errorf("%q", endpoints)
	}
}

func TestATokenThatIsNone(t *testing.T) {
	h := newHouse(t)
	_, err := h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{PageToken: "not base64!"})
	wantCode(t, err, codes.InvalidArgument)
	_, err = h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{PageToken: "Z3JlZXRlcg"})
	wantCode(t, err, codes.InvalidArgument)
}
