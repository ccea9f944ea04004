package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// listed is a flag as testdata/flags.txt has it.
type listed struct {
	short, name, kind, def string
	hidden                 bool // not in the help of a Linux client
}

func listedFlags(t *testing.T) map[string][]listed {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "flags.txt"))
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^(?:-(\w), )?--([\w-]+)(?: ([\w-]+)(?:=([^ ]*))?)?( \{.*\})?$`)
	out := map[string][]listed{}
	command := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, "\t"):
			command = line
			out[command] = nil
		default:
			m := form.FindStringSubmatch(line[1:])
			if m == nil {
				t.Fatalf("%s: no flag: %q", command, line)
			}
			f := listed{short: m[1], name: m[2], kind: m[3], def: m[4]}
			f.hidden = strings.Contains(m[5], "win") || strings.Contains(m[5], "exp")
			out[command] = append(out[command], f)
		}
	}
	return out
}

// sameKind compares the word of a type in help with that in the list: help shows some types by
// another, and addresses are parsed behind the flag here.
func sameKind(got, want string) bool {
	switch want {
	case "bool":
		return got == ""
	case "stringSlice", "ipSlice", "ipNetSlice":
		return got == "strings"
	case "ip":
		return got == "string"
	}
	return got == want || got+"64" == want
}

// checkFlag looks for a flag of the list in the command and in its help.
func checkFlag(t *testing.T, command string, f listed, help string, shown map[string][]string) {
	t.Helper()
	_, stderr, _ := run(append(strings.Fields(command), "--"+f.name+"=\x01")...)
	if strings.Contains(stderr, "unknown flag") {
		t.Errorf("--%s is missing", f.name)
		return
	}
	m, ok := shown[f.name]
	if !ok {
		if !f.hidden {
			t.Errorf("--%s is not in the help", f.name)
		}
		return
	}
	if m[1] != f.short || !sameKind(m[3], f.kind) {
		t.Errorf("--%s has the short form %q and the type %q, want %q and %q", f.name, m[1], m[3], f.short, f.kind)
	}
	switch f.def {
	case "", "0", "0s", "<nil>": // not shown
	default:
		if !strings.Contains(help, f.def) {
			t.Errorf("--%s does not show its default %s", f.name, f.def)
		}
	}
}

// TestEveryFlag: the flags of Docker's commands are there, with their short forms, types and
// defaults, and no others.
func TestEveryFlag(t *testing.T) {
	isolate(t, "/nonexistent")
	form := regexp.MustCompile(`(?m)^ +(?:-(\w), )?--([\w-]+)(?: ([\w-]+))?(?: {2,}|\n)`)
	// Ours are what a container does that is unhealthy; the others are deprecated in Docker, and
	// parsed without effect.
	more := []string{"health-on-failure", "disable-content-trust", "kernel-memory"}
	// Of swarm's cluster volumes.
	notHere := map[string][]string{
		"volume ls": {"cluster"},
		"volume create": {
			"availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing", "topology-preferred",
			"topology-required", "type",
		},
	}
	for command, flags := range listedFlags(t) {
		t.Run(command, func(t *testing.T) {
			out, _, code := run(append(strings.Fields(command), "--help")...)
			if code != 0 {
				t.Fatalf("--help ends with %d", code)
			}
			shown := map[string][]string{}
			for _, m := range form.FindAllStringSubmatch(out, -1) {
				shown[m[2]] = m
			}
			for _, f := range flags {
				if f.name != "help" && !slices.Contains(notHere[command], f.name) {
					checkFlag(t, command, f, out, shown)
				}
			}
			for name := range shown {
				known := slices.ContainsFunc(flags, func(f listed) bool { return f.name == name })
				if !known && !slices.Contains(more, name) {
					t.Errorf("--%s is no flag of Docker's", name)
				}
			}
		})
	}
}
