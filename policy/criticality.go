package policy

// Criticality says how much a call matters to the people it is made for
// (Google SRE book, chapter 21, "Handling Overload"). When there is not room
// for all, the least critical go first. The zero value is Critical: what a
// call is that says nothing.
type Criticality int8

// The criticalities. A greater value matters more.
const (
	// Sheddable calls may fail often, for hours: batch work that comes again.
	Sheddable Criticality = iota - 2
	// SheddablePlus calls may fail now and then: batch work that somebody waits
	// for.
	SheddablePlus
	// Critical calls are what users see.
	Critical
	// CriticalPlus calls are those whose failure users see worst.
	CriticalPlus
)

// numClasses is how many criticalities there are.
const numClasses = 4

var criticalityNames = [numClasses]string{"CRITICAL_PLUS", "CRITICAL", "SHEDDABLE_PLUS", "SHEDDABLE"}

// class returns the criticality's place in order, 0 for the most critical.
// Values out of range count as the nearest one.
func (c Criticality) class() int { return int(CriticalPlus - min(max(c, Sheddable), CriticalPlus)) }

// String returns the criticality's public name.
func (c Criticality) String() string { return criticalityNames[c.class()] }

// ParseCriticality returns the criticality of a public name, as String spells
// it. For any other name it returns Critical and false.
func ParseCriticality(name string) (Criticality, bool) {
	for class, known := range criticalityNames {
		if name == known {
			return CriticalPlus - Criticality(class), true
		}
	}
	return Critical, false
}
