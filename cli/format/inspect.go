package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/gantry/gantry/cli/command"
)

// Get looks one object up: as a value for templates (may be nil) and as the daemon's JSON.
type Get func(ref string) (value any, raw []byte, err error)

// Inspect looks up refs and writes them: a JSON array, or each through the template f.
// What was found is written even when others failed; then the error tells of those and the
// exit code is 1.
func Inspect(w io.Writer, refs []string, f string, get Get) error {
	var tmpl *template.Template
	switch f {
	case "", "json":
	default:
		t, err := parse(f)
		if err != nil {
			return command.ExitError{Code: 64, Text: err.Error(), Err: err}
		}
		tmpl = t
	}
	var raws []json.RawMessage
	var out bytes.Buffer
	var errs []string
	for _, ref := range refs {
		v, raw, err := get(ref)
		if err != nil {
			errs = append(errs, command.Text(err))
			continue
		}
		if tmpl == nil {
			raws = append(raws, raw)
			continue
		}
		if err := execute(&out, tmpl, v, raw); err != nil {
			errs = append(errs, err.Error())
			break
		}
		out.WriteByte('\n')
	}
	if tmpl == nil {
		if err := writeArray(&out, raws, f == "json"); err != nil {
			return err
		}
	} else if out.Len() == 0 {
		out.WriteByte('\n')
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return err
	}
	if len(errs) > 0 {
		return command.ExitError{Code: 1, Text: strings.Join(errs, "\n"), Err: errors.New("inspect failed")}
	}
	return nil
}

func writeArray(out *bytes.Buffer, raws []json.RawMessage, compact bool) error {
	if len(raws) == 0 {
		out.WriteString("[]\n")
		return nil
	}
	all := append([]byte{'['}, bytes.Join(rawSlices(raws), []byte{','})...)
	all = append(all, ']')
	var err error
	if compact {
		err = json.Compact(out, all)
	} else {
		err = json.Indent(out, all, "", "    ")
	}
	out.WriteByte('\n')
	return err
}

func rawSlices(raws []json.RawMessage) [][]byte {
	out := make([][]byte, len(raws))
	for i, r := range raws {
		out[i] = bytes.TrimSpace(r)
	}
	return out
}

// execute tries the typed value first and the raw object when a field is missing there:
// the daemon may be newer than we are.
func execute(out *bytes.Buffer, t *template.Template, v any, raw []byte) error {
	var b bytes.Buffer
	err := t.Execute(&b, v)
	if err == nil && v != nil {
		out.Write(b.Bytes())
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var m any
	if derr := dec.Decode(&m); derr != nil {
		return fmt.Errorf("unable to read inspect data: %w", derr)
	}
	b.Reset()
	strict, cerr := t.Clone()
	if cerr != nil {
		return cerr
	}
	if rerr := strict.Option("missingkey=error").Execute(&b, m); rerr != nil {
		return fmt.Errorf("template parsing error: %w", rerr)
	}
	out.Write(b.Bytes())
	return nil
}
