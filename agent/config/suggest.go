package config

import "strings"

// meant names what was probably meant, or all that could be.
func meant(written string, known []string) string {
	best, distance := "", len(written)/3+1
	for _, name := range known {
		if d := editDistance(plainName(written), plainName(name), distance); d < distance {
			best, distance = name, d
		}
	}
	switch {
	case best != "":
		return "did you mean " + best + "?"
	case len(known) == 0:
		return "want none"
	}
	return "want " + oneOf(known)
}

var separators = strings.NewReplacer("_", "", "-", "", ".", "")

// plainName makes perTryTimeout, per-try-timeout and per_try_timeout alike.
func plainName(name string) string { return strings.ToLower(separators.Replace(name)) }

// editDistance is Levenshtein's, or limit where it is no less.
func editDistance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
