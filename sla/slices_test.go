package sla

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPackedSlicesUnpackToWhatTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHistogram(t, "h")
		var p packer
		p.histogram(h)
		var got Histogram
		unpack(p.to, &got)
		got.waited = h.waited // not part of the buckets
		if !equal(&got, h) {
			t.Fatal("unpacked to something else")
		}
	})
}

func TestPackedFormOfKnownCounts(t *testing.T) {
	var h Histogram
	h.answered.add(0, 1)
	h.answered.add(2, 300)
	h.unanswered.add(64, 2)
	var p packer
	p.histogram(&h)
	want := []byte{1, 0, 1, 0xac, 2, 0, 0, 0, 64, 2, 0, 0}
	if !bytes.Equal(p.to, want) {
		t.Errorf("got %v, want %v", p.to, want)
	}
}

func TestTiersFitTogether(t *testing.T) {
	for k := 1; k < len(tiers); k++ {
		fine, coarse := tiers[k-1], tiers[k]
		if coarse.width%fine.width != 0 || fine.span() < coarse.width || coarse.span() <= fine.span() {
			t.Errorf("slices of %v can't be made of %d of %v", coarse.width, fine.keep, fine.width)
		}
	}
	if MaxWindow%hourWidth != 0 || time.Hour%tiers[len(tiers)-1].width != 0 {
		t.Error("hours aren't made of whole slices")
	}
}
