package tasks

import "testing"

func called(p *place) bool {
	select {
	case <-p.called:
		return true
	default:
		return false
	}
}

func TestAnArrivalCallsWhoWaitsLongest(t *testing.T) {
	var d desk
	first, second, other := d.line([]string{"save", "mail"}), d.line([]string{"save"}), d.line([]string{"mail"})

	d.arrived("save")
	if !called(first) || called(second) || called(other) {
		t.Error("not the first one alone was called")
	}
	d.arrived("mail") // the first has left this line too
	if called(first) || called(second) || !called(other) {
		t.Error("not the one who waits for mail was called")
	}
	d.leave(second)
	d.arrived("save")
	if called(second) || len(d.lines) != 0 {
		t.Errorf("one who left was called, or stays in %v", d.lines)
	}
}

func TestARoundCallsOneOfEachQueue(t *testing.T) {
	var d desk
	a, b, c := d.line([]string{"save"}), d.line([]string{"save"}), d.line([]string{"mail"})
	d.round()
	if !called(a) || called(b) || !called(c) {
		t.Error("not the first of each queue was called")
	}
}
