package format

import (
	"bytes"
	"io"
	"strings"
	"text/tabwriter"
)

// filler stands behind each character that takes two columns, so that the tab writer,
// which counts characters, counts columns. Unicode promises that no text has it.
const filler = '\ufdd0'

// Table aligns cells that tabs separate. Nothing is written before Flush.
type Table struct {
	tw      *tabwriter.Writer
	aligned bytes.Buffer
	out     io.Writer
}

// NewTable makes a table whose columns are minWidth wide or more, with three spaces
// between them.
func NewTable(out io.Writer, minWidth int) *Table {
	t := &Table{out: out}
	t.tw = tabwriter.NewWriter(&t.aligned, minWidth, 1, 3, ' ', 0)
	return t
}

// Write takes whole characters: lines of cells.
func (t *Table) Write(p []byte) (int, error) {
	var b strings.Builder
	for _, r := range string(p) {
		b.WriteRune(r)
		if runeWidth(r) == 2 {
			b.WriteRune(filler)
		}
	}
	if _, err := io.WriteString(t.tw, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes the table.
func (t *Table) Flush() error {
	if err := t.tw.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(t.out, strings.ReplaceAll(t.aligned.String(), string(filler), ""))
	return err
}
