package balancer

// Zone routing keeps calls in the caller's zone as far as its endpoints can bear
// them (Envoy, "Zone aware routing"). Nobody tells how the callers are spread
// over the zones: they are taken to be as many in each as its endpoints would
// bear if all were fit. So as long as the zone's part of the fit capacity is no
// less than its part of all capacity, every call stays. Else as many stay as
// there is capacity for, and the rest goes to the zones that have some to spare,
// by how much. Then every endpoint that is fit gets as much, wherever it is.

// capacity is a zone's weights.
type capacity struct {
	all, fit float64
}

// zoneShares returns what each zone gets of the calls of callers in the local
// one. nil: the zones are not to be told apart.
func zoneShares(zones []capacity, local int) []float64 {
	var all, fit float64
	for _, z := range zones {
		all += z.all
		fit += z.fit
	}
	if fit == 0 || zones[local].all == 0 {
		return nil
	}
	shares := make([]float64, len(zones))
	// Fractions compare as products of whole numbers: exactly.
	callers, bears := zones[local].all*fit, zones[local].fit*all
	if bears >= callers {
		shares[local] = 1
		return shares
	}
	shares[local] = bears / callers
	spare := 0.0
	for i, z := range zones {
		if s := z.fit*all - z.all*fit; i != local && s > 0 {
			shares[i] = s
			spare += s
		}
	}
	for i := range shares {
		if i != local {
			shares[i] *= (1 - shares[local]) / spare
		}
	}
	return shares
}
