package balancer

// overprovision is how many times its share of calls a priority is thought to
// bear: it keeps all of them until fewer than 1/1.4 or 72 % of its endpoints are
// fit (Envoy's overprovisioning factor, and its default).
const overprovision = 1.4

// headcount is who of a priority's endpoints can do what.
type headcount struct {
	all       int
	notBarred int
	connected int // of those not barred
	fit       int // of those
}

func count(members []*Endpoint) (n headcount) {
	for _, e := range members {
		standing := e.word.standing.Load()
		n.all++
		if standing&barring != 0 {
			continue
		}
		n.notBarred++
		if standing&connection.bit() != 0 {
			continue
		}
		n.connected++
		if standing == 0 {
			n.fit++
		}
	}
	return n
}

// of returns the count as one of so many endpoints: what stands in for others
// bears what they would, and no more.
func (n headcount) of(size int) headcount {
	return headcount{min(n.all, size), min(n.notBarred, size), min(n.connected, size), min(n.fit, size)}
}

// bears is the part of the calls that the endpoints can bear, 0 to 1.
func (n headcount) bears() float64 {
	if n.all == 0 {
		return 0
	}
	return min(overprovision*float64(n.fit)/float64(n.all), 1)
}

// inPanic reports whether so few are fit that the others must be thought no
// worse. What has no connection is not: that is known, and a call sent there
// only comes back.
func (n headcount) inPanic(threshold float64) bool {
	return n.connected > 0 && float64(n.fit) < threshold*float64(n.connected)
}

// load is what a priority gets of the calls.
type load struct {
	share    float64
	panicked bool
}

// loads divides the calls among priorities, as Envoy does ("Priority levels",
// "Panic threshold"): each takes what it can bear of what those before it leave;
// where all together can't bear it, each takes more by the same factor. There
// is no panic as long as other priorities can bear what one can't. Where nobody
// is fit the first priority that has a connection, or else one to try, takes
// all; in panic all do, by their numbers.
func loads(counts []headcount, threshold float64) []load {
	out := make([]load, len(counts))
	total := 0.0
	for _, n := range counts {
		total += n.bears()
	}
	if total == 0 {
		return desperate(counts, threshold, out)
	}
	left := 1.0
	for i, n := range counts {
		share := n.bears()
		if total < 1 {
			share /= total
		}
		out[i].share = min(share, left)
		left -= out[i].share
		out[i].panicked = (total < 1 || len(counts) == 1) && n.inPanic(threshold)
	}
	return out
}

// desperate divides the calls where nobody is fit.
func desperate(counts []headcount, threshold float64, out []load) []load {
	for _, of := range [...]func(headcount) int{
		func(n headcount) int { return n.connected },
		func(n headcount) int { return n.notBarred },
	} {
		sum := 0
		for _, n := range counts {
			sum += of(n)
		}
		if sum == 0 {
			continue
		}
		for i, n := range counts {
			if of(n) == 0 {
				continue
			}
			if threshold <= 0 {
				out[i].share = 1
				return out
			}
			out[i] = load{share: float64(of(n)) / float64(sum), panicked: true}
		}
		return out
	}
	return out
}
