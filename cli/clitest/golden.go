package clitest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli"
)

// Line is a command line in its surroundings.
type Line struct {
	// Args is what follows `docker`, in words as a shell has them: 'one word' in quotes.
	Args string
	// Name tells lines with the same words apart.
	Name   string
	Stdin  string
	Env    []string // NAME=value
	Config string   // config.json
	// Files are there in the working directory, by their name.
	Files map[string]string
	// Engine prepares the engine.
	Engine func(*Engine)
	// Only keeps requests whose "METHOD /path" begins with it; "-" keeps none.
	Only string
	// After looks at the working directory when the line is through.
	After func(dir string)
}

// Outcome is all that a command line did.
type Outcome struct {
	Out, Err string
	Code     int
	Requests []string // sorted: some are sent side by side
}

func (o Outcome) text() string {
	part := func(title, s string) string {
		if s == "" {
			return ""
		}
		if !strings.HasSuffix(s, "\n") {
			s += "\\ no newline at the end\n"
		}
		return "--- " + title + "\n" + s
	}
	reqs := ""
	for _, r := range o.Requests {
		reqs += r + "\n"
	}
	return fmt.Sprintf("exit %d\n", o.Code) + part("stdout", o.Out) + part("stderr", o.Err) + part("requests", reqs)
}

// Lines makes lines that need nothing but their words, one in each line of text.
func Lines(text string) []Line {
	var out []Line
	for l := range strings.Lines(strings.TrimSpace(text)) {
		out = append(out, Line{Args: strings.TrimSpace(l)})
	}
	return out
}

// Golden runs each line in a subtest against an engine of its own, and compares output, exit
// code and requests with its section of testdata/file. With UPDATE_GOLDEN=1 the file is
// written anew; with GANTRY_GOLDEN_DOCKER=path that client runs the same lines and is compared as well:
// the texts are Docker's, and this is how they were got.
func Golden(t *testing.T, file string, lines []Line) {
	t.Helper()
	path := filepath.Join("testdata", file)
	update := os.Getenv("UPDATE_GOLDEN") != ""
	want := map[string]string{}
	if !update {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want = sections(string(b))
	}
	var all strings.Builder
	docker := os.Getenv("GANTRY_GOLDEN_DOCKER")
	for _, l := range lines {
		title := strings.TrimSpace("docker " + l.Args + " " + suffix(l.Name))
		t.Run(title, func(t *testing.T) {
			got := l.Run(t).text()
			fmt.Fprintf(&all, "##### %s\n%s\n", title, got)
			w, ok := want[title]
			switch {
			case update:
			case !ok:
				t.Errorf("%s has no section for this line; it does:\n%s", path, got)
			case w != got:
				t.Errorf("- is, + wanted:\n%s", difference(got, w))
			}
			if docker != "" {
				if d := l.run(t, program(docker)).text(); d != got {
					t.Errorf("- ours, + Docker's:\n%s", difference(got, d))
				}
			}
		})
		delete(want, title)
	}
	for title := range want {
		t.Errorf("%s has a section for %q, which no line has", path, title)
	}
	if update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// difference shows the lines from the first to the last that differ.
func difference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for len(as) > 0 && len(bs) > 0 && as[0] == bs[0] {
		as, bs = as[1:], bs[1:]
	}
	for len(as) > 0 && len(bs) > 0 && as[len(as)-1] == bs[len(bs)-1] {
		as, bs = as[:len(as)-1], bs[:len(bs)-1]
	}
	var out strings.Builder
	for _, l := range as {
		out.WriteString("- " + l + "\n")
	}
	for _, l := range bs {
		out.WriteString("+ " + l + "\n")
	}
	return out.String()
}

func suffix(name string) string {
	if name == "" {
		return ""
	}
	return "(" + name + ")"
}

func sections(s string) map[string]string {
	out := map[string]string{}
	for _, sec := range strings.Split("\n"+s, "\n##### ")[1:] {
		title, body, _ := strings.Cut(sec, "\n")
		if strings.HasSuffix(body, "\n\n") {
			body = body[:len(body)-1]
		}
		out[title] = body
	}
	return out
}

// Run runs the line in this process, which has nothing of the user's environment then.
func (l Line) Run(t *testing.T) Outcome {
	t.Helper()
	return l.run(t, func(_ string, args []string, _ []string, in io.Reader, out, errw io.Writer) int {
		return cli.Main(args, io.NopCloser(in), out, errw)
	})
}

type runner func(dir string, args, env []string, in io.Reader, out, errw io.Writer) int

// program runs another client.
func program(path string) runner {
	return func(dir string, args, env []string, in io.Reader, out, errw io.Writer) int {
		cmd := exec.Command(path, args...)
		cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errw
		err := cmd.Run()
		var ee *exec.ExitError
		if err != nil && !errors.As(err, &ee) {
			fmt.Fprintln(errw, err)
		}
		return cmd.ProcessState.ExitCode()
	}
}

func (l Line) run(t *testing.T, do runner) Outcome {
	t.Helper()
	e := New(t)
	if l.Engine != nil {
		l.Engine(e)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "config")
	files := map[string]string{"config/config.json": l.Config}
	for name, text := range l.Files {
		files[name] = text
	}
	for name, text := range files {
		if text == "" {
			continue
		}
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := append([]string{"HOME=/nonexistent", "TZ=UTC", "DOCKER_CONFIG=" + conf, "DOCKER_HOST=unix://" + e.Socket}, l.Env...)
	for _, k := range []string{
		"DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION",
		"DOCKER_DEFAULT_PLATFORM", "DOCKER_CUSTOM_HEADERS",
	} {
		t.Setenv(k, "")
	}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	t.Chdir(dir)
	var out, errb bytes.Buffer
	o := Outcome{Code: do(dir, Words(l.Args), env, strings.NewReader(l.Stdin), &out, &errb)}
	if l.After != nil {
		l.After(dir)
	}
	clean := strings.NewReplacer(e.Socket, "SOCK", dir, "DIR").Replace
	o.Out, o.Err = clean(out.String()), clean(errb.String())
	for _, r := range e.Requests() {
		if !strings.HasPrefix(r.Method+" "+r.Path, l.Only) {
			continue
		}
		s := r.Method + " " + r.Path
		if r.Query != "" {
			s += "?" + r.Query
		}
		if r.Body != "" {
			s += " " + r.Body
		}
		if r.Auth != "" {
			s += " auth " + r.Auth
		}
		o.Requests = append(o.Requests, clean(s))
	}
	sort.Strings(o.Requests)
	return o
}

// Words splits s at spaces, except between single quotes.
func Words(s string) []string {
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for _, r := range s {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	return out
}
