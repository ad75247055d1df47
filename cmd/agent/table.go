package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tone is what a word means, for those who see colours.
type tone uint8

const (
	plain tone = iota
	good
	warning
	bad
	faint
)

var escapes = [...]string{good: "\x1b[32m", warning: "\x1b[33m", bad: "\x1b[1;31m", faint: "\x1b[2m"}

// paint colours a word, or leaves it as it is.
func paint(s string, t tone, colours bool) string {
	if !colours || t == plain || s == "" {
		return s
	}
	return escapes[t] + s + "\x1b[0m"
}

// cell is a word of a table.
type cell struct {
	text string
	tone tone
}

// table is rows of aligned columns. The zero value is empty.
type table struct {
	// indent stands before each row.
	indent string
	titles []string
	right  []bool // by column: numbers
	rows   [][]cell
}

// newTable returns a table with a row of titles. A title that begins with ">"
// stands over numbers: its column is aligned to the right.
func newTable(titles ...string) *table {
	t := &table{}
	for _, title := range titles {
		trimmed, right := strings.CutPrefix(title, ">")
		t.titles, t.right = append(t.titles, trimmed), append(t.right, right)
	}
	return t
}

// add appends a row. A cell is a string or a cell.
func (t *table) add(cells ...any) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case cell:
			row[i] = cell{oneLine(c.text), c.tone}
		case string:
			row[i] = cell{oneLine(c), plain}
		default:
			row[i] = cell{fmt.Sprint(c), plain}
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table; nothing of one without rows.
func (t *table) print(w io.Writer, colours bool) {
	if len(t.rows) == 0 {
		return
	}
	rows := t.rows
	if len(t.titles) > 0 {
		heads := make([]cell, len(t.titles))
		for i, title := range t.titles {
			heads[i] = cell{title, faint}
		}
		rows = append([][]cell{heads}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		line.WriteString(t.indent)
		pending := 0 // spaces that are written only if something follows
		for i, c := range row {
			gap := widths[i] - utf8.RuneCountInString(c.text)
			if i < len(t.right) && t.right[i] {
				pending, gap = pending+gap, 0
			}
			if c.text != "" {
				line.WriteString(strings.Repeat(" ", pending))
				line.WriteString(paint(c.text, c.tone, colours))
				pending = 0
			}
			pending += gap + 2
		}
		fmt.Fprintln(w, line.String())
	}
}

// oneLine makes text safe to show: names come from callers, and no control
// sequence of theirs may reach the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
