package store

import "time"

// Retention is how long jobs are kept after they ended.
type Retention struct{ Completed, Cancelled, Failed time.Duration }

// PurgeFilter says which jobs that have ended are deleted. Zero fields: all.
type PurgeFilter struct {
	ID          int64
	States      []State
	Kind, Queue string
	EndedBefore time.Time
}
