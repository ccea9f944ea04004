// Package format writes lists as tables, Go templates or JSON lines, with the functions
// and directives of Docker's --format.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
)

// Help is the usage text of --format for lists, HelpSingle for single objects.
const (
	Help = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`
	HelpSingle = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.
Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates`
)

// IsTableKey is the format that asks for the table of a command.
const IsTableKey = "table"

// IsTable says whether f asks for a table.
func IsTable(f string) bool { return strings.HasPrefix(f, IsTableKey) }

// Header gives the column titles by field name; as template data it answers fields the
// way rows do.
type Header map[string]string

// Label is the title of a column made by {{.Label "name"}}.
func (h Header) Label(name string) string {
	parts := strings.Split(name, ".")
	return strings.NewReplacer("-", " ", "_", " ").Replace(parts[len(parts)-1])
}

// Write writes rows to w in format f. A row is a pointer to a struct whose methods without
// arguments are its fields. Titles are printed even when there are no rows.
func Write[T any](w io.Writer, f string, header Header, rows []T) error {
	table := IsTable(f)
	body := f
	if table {
		body = strings.TrimPrefix(f, IsTableKey)
	}
	body = strings.Trim(body, " ")
	body = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(body)
	if body == "json" {
		body = "{{json .}}"
	}
	t, err := parse(body)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	for i := range rows {
		if err := t.Execute(&buf, rows[i]); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		buf.WriteByte('\n')
	}
	if !table {
		_, err = w.Write(buf.Bytes())
		return err
	}
	tw := NewTable(w, 10)
	ht, err := t.Clone()
	if err != nil {
		return err
	}
	if err := ht.Funcs(headerFuncs()).Execute(tw, header); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	fmt.Fprintln(tw)
	if _, err := tw.Write(buf.Bytes()); err != nil {
		return err
	}
	return tw.Flush()
}

func parse(s string) (*template.Template, error) { return Template("", s) }

// Template parses a template with Docker's functions; errors speak of it by name.
func Template(name, s string) (*template.Template, error) {
	t, err := template.New(name).Funcs(funcs()).Parse(s)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// Check parses the template in f and answers the parser's own error.
func Check(f string) error {
	_, err := template.New("").Funcs(funcs()).Parse(f)
	return err
}

// TryRow executes the template in f, with or without "table", on row and throws the
// result away; the error is the template's own.
func TryRow(f string, row any) error {
	t, err := parse(strings.TrimSpace(strings.TrimPrefix(f, "table ")))
	if err != nil {
		return err
	}
	return t.Execute(io.Discard, row)
}

func funcs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) string {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(v); err != nil {
				return ""
			}
			return strings.TrimSpace(b.String())
		},
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": Truncate,
	}
}

func headerFuncs() template.FuncMap {
	same := func(v string) string { return v }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": strings.ToUpper,
		"split":    func(v string, _ string) string { return v },
		"join":     func(v string, _ string) string { return v },
		"truncate": func(v string, _ int) string { return v },
		"pad":      pad,
	}
}

func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		start := !unicode.IsLetter(prev) && !unicode.IsDigit(prev) && prev != '_' && prev != '\''
		prev = r
		if start {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

// Truncate cuts s to n runes.
func Truncate(s string, n int) string {
	r := []rune(s)
	if len(r) <= n || n < 0 {
		return s
	}
	return string(r[:n])
}

// Ellipsis cuts s to width columns, the last of which is an ellipsis when it was longer.
func Ellipsis(s string, width int) string {
	if width <= 0 {
		return ""
	}
	n := 0
	for i, r := range s {
		w := runeWidth(r)
		if n+w > width-1 && columns(s[i:]) > width-n {
			if width == 1 {
				return string(r)
			}
			return s[:i] + "…"
		}
		n += w
	}
	return s
}

func columns(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

// runeWidth is 2 for the wide scripts of East Asia, 1 otherwise.
func runeWidth(r rune) int {
	if r >= 0x1100 && (r <= 0x115f || (r >= 0x2e80 && r <= 0xa4cf) || (r >= 0xac00 && r <= 0xd7a3) ||
		(r >= 0xf900 && r <= 0xfaff) || (r >= 0xfe30 && r <= 0xfe6f) || (r >= 0xff00 && r <= 0xff60) ||
		(r >= 0xffe0 && r <= 0xffe6) || (r >= 0x20000 && r <= 0x3fffd)) {
		return 2
	}
	return 1
}

// ShortID is an ID as tables show it: no algorithm, 12 digits.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// MarshalRow is the JSON object of a row: its methods without arguments, by name.
func MarshalRow(row any) ([]byte, error) {
	v := reflect.ValueOf(row)
	m := make(map[string]any, v.NumMethod())
	for i := range v.NumMethod() {
		name, f := v.Type().Method(i).Name, v.Method(i)
		if name == "MarshalJSON" || f.Type().NumIn() != 0 || f.Type().NumOut() != 1 {
			continue
		}
		m[name] = f.Call(nil)[0].Interface()
	}
	return json.Marshal(m)
}

// Bool is a boolean as rows show it.
func Bool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
