package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminalOf returns the terminal that w is, if it is one that can be drawn on.
func terminalOf(w io.Writer) (*os.File, bool) {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return nil, false
	}
	return file, true
}

// coloursOf reports whether w is to get colours: a terminal whose user did not
// refuse them (https://no-color.org).
func coloursOf(w io.Writer) bool {
	_, ok := terminalOf(w)
	return ok && os.Getenv("NO_COLOR") == ""
}
