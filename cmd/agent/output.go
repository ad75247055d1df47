package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// output is the form that a verb prints in. It implements pflag.Value.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

// flag adds -o to a verb.
func (o *output) flag(c *cobra.Command) {
	*o = outputTable
	c.Flags().VarP(o, "output", "o", "how to print: table, or json for scripts")
}

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "FORMAT" }

func (o *output) Set(s string) error {
	switch output(s) {
	case outputTable, outputJSON:
		*o = output(s)
		return nil
	}
	return fmt.Errorf("want table or json")
}

// protoJSON prints names as the proto files have them, and empty fields too:
// a script finds every field in every message.
var protoJSON = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}

// printMessage prints a message as JSON.
func printMessage(w io.Writer, m proto.Message) error {
	text, err := protoJSON.Marshal(m)
	if err != nil {
		return err
	}
	return printJSON(w, json.RawMessage(text))
}

// printMessageLine prints a message as JSON in one line.
func printMessageLine(w io.Writer, m proto.Message) error {
	text, err := protoJSON.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its spaces on purpose; scripts and diffs are better off
	// without.
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, line.String())
	return err
}

// printJSON prints v as indented JSON.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
