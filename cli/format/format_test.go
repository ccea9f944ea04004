package format_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
)

type row struct{ name, list string }

func (r *row) Name() string                 { return r.name }
func (r *row) List() string                 { return r.list }
func (r *row) Label(n string) string        { return r.name + "/" + n }
func (r *row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

func TestWrite(t *testing.T) {
	header := format.Header{"Name": "NAME", "List": "A LIST"}
	rows := []*row{{"one", "a,b"}, {"a longer name", "<c>"}, {"日本", ""}}
	for _, c := range []struct {
		name, format, want, err string
		rows                    []*row
	}{
		{"table", "table {{.Name}}\t{{.List}}", "NAME            A LIST\none             a,b\na longer name   <c>\n日本            \n", "", rows},
		{"table without rows", "table {{.Name}}\t{{.List}}", "NAME      A LIST\n", "", nil},
		{"written escapes", `table {{.List}}\t{{.Name}}`, "A LIST    NAME\na,b       one\n<c>       a longer name\n          日本\n", "", rows},
		{"template", "{{.Name}}:{{.List}}", "one:a,b\na longer name:<c>\n日本:\n", "", rows},
		{"newline", `{{.Name}}\n-`, "one\n-\na longer name\n-\n日本\n-\n", "", rows},
		{"template without rows", "{{.Name}}", "", "", nil},
		{"json", "json", `{"List":"a,b","Name":"one"}` + "\n", "", rows[:1]},
		{"field as json", "{{json .List}}", "\"<c>\"\n", "", rows[1:2]},
		{"upper and lower", "{{upper .Name}} {{lower .Name}} {{title .Name}}", "A LONGER NAME a longer name A Longer Name\n", "", rows[1:2]},
		{"split and join", `{{join (split .List ",") "+"}}`, "a+b\n", "", rows[:1]},
		{"pad", `{{pad .Name 1 2}}|{{pad .List 1 2}}|`, " 日本  ||\n", "", rows[2:]},
		{"truncate", `{{truncate .Name 1}}`, "o\na\n日\n", "", rows},
		{"label", `table {{.Label "com.example.tier-name"}}\t{{upper .Name}}`, "tier name                   NAME\none/com.example.tier-name   ONE\n", "", rows[:1]},
		{"unknown field", "{{.Nope}}", "", "template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *format_test.row", rows},
		{"broken", "{{.Name", "", "template parsing error: template: :1: unclosed action", rows},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := format.Write(&out, c.format, header, c.rows)
			if got := errText(err); got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
			if out.String() != c.want {
				t.Errorf("wrote\n%q, want\n%q", out.String(), c.want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEllipsis(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short", 10, "short"},
		{"exactly 10", 10, "exactly 10"},
		{"one more than", 12, "one more th…"},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
		{"abc", 1, "a"},
		{"abc", 0, ""},
		{"", 5, ""},
	} {
		t.Run(c.in, func(t *testing.T) {
			if got := format.Ellipsis(c.in, c.n); got != c.want {
				t.Errorf("%d: %q, want %q", c.n, got, c.want)
			}
		})
	}
}

func TestShortID(t *testing.T) {
	for in, want := range map[string]string{
		"sha256:0123456789abcdef": "0123456789ab", "0123456789abcdef": "0123456789ab", "abc": "abc", "": "", "sha256:": "",
	} {
		t.Run(in, func(t *testing.T) {
			if got := format.ShortID(in); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// Inspect: what is found is shown even when other names are not; a template takes the typed
// object, and the daemon's own JSON for fields newer than the type.
func TestInspect(t *testing.T) {
	type object struct{ Name string }
	get := func(ref string) (any, []byte, error) {
		if strings.HasPrefix(ref, "none") {
			return nil, nil, errors.New("no such thing: " + ref)
		}
		return object{ref}, []byte(`{"Name": "` + ref + `","New":{"Number":12345678901234567890},"Tag":"<a>"}`), nil
	}
	for _, c := range []struct {
		name, refs, format, out, err string
		code                         int
	}{
		{"one", "a", "", "[\n    {\n        \"Name\": \"a\",\n        \"New\": {\n            \"Number\": 12345678901234567890\n        },\n        \"Tag\": \"<a>\"\n    }\n]\n", "", 0},
		{"compact", "a b", "json", `[{"Name":"a","New":{"Number":12345678901234567890},"Tag":"<a>"},{"Name":"b","New":{"Number":12345678901234567890},"Tag":"<a>"}]` + "\n", "", 0},
		{"template", "a b", "{{.Name}}", "a\nb\n", "", 0},
		{"a field of the daemon's", "a", "{{.New.Number}} {{json .Tag}}", "12345678901234567890 \"<a>\"\n", "", 0},
		{"no such field", "a b", "{{.Nope}}", "\n", "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"", 1},
		{"broken", "a", "{{.Name", "", "template parsing error: template: :1: unclosed action", 64},
		{"none", "none1", "", "[]\n", "no such thing: none1", 1},
		{"none in a template", "none1", "{{.Name}}", "\n", "no such thing: none1", 1},
		{"some", "a none1 b none2", "{{.Name}}", "a\nb\n", "no such thing: none1\nno such thing: none2", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := format.Inspect(&out, strings.Fields(c.refs), c.format, get)
			if out.String() != c.out {
				t.Errorf("wrote\n%q, want\n%q", out.String(), c.out)
			}
			if got := errText(err); got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
			if err != nil && command.ExitCode(err) != c.code {
				t.Errorf("exit %d, want %d", command.ExitCode(err), c.code)
			}
		})
	}
}

func TestCheckAndTryRow(t *testing.T) {
	for _, c := range []struct{ name, format, check, try string }{
		{"fine", "{{.Name}}", "", ""},
		{"a table", "table {{.Name}}", "", ""},
		{"unknown field", "table {{.Nope}}", "", "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *format_test.row"},
		{"broken", "{{", "template: :1: unclosed action", "template parsing error: template: :1: unclosed action"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := errText(format.Check(c.format)); got != c.check {
				t.Errorf("Check: %q, want %q", got, c.check)
			}
			if got := errText(format.TryRow(c.format, &row{})); got != c.try {
				t.Errorf("TryRow: %q, want %q", got, c.try)
			}
		})
	}
}

func TestMarshalRow(t *testing.T) {
	b, err := json.Marshal([]*row{{"a", "b"}})
	if err != nil || string(b) != `[{"List":"b","Name":"a"}]` {
		t.Errorf("%s, %v", b, err)
	}
}
