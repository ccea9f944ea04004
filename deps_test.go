package gantry_test

import (
	"os"
	"strings"
	"testing"
)

// Every module that go.mod requires directly stands in docs/DEPENDENCIES.md with its
// reason, and every row there is a module that go.mod requires directly.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/DEPENDENCIES.md")
	if err != nil {
		t.Fatal(err)
	}
	direct := directModules(string(mod))
	if len(direct) == 0 {
		t.Fatal("no direct module found in go.mod")
	}
	told := explainedModules(string(doc))
	for m := range direct {
		if !told[m] {
			t.Errorf("%s is required by go.mod and has no row in docs/DEPENDENCIES.md", m)
		}
	}
	for m := range told {
		if !direct[m] {
			t.Errorf("%s has a row in docs/DEPENDENCIES.md and is not required by go.mod directly", m)
		}
	}
}

func directModules(mod string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(mod) {
		f := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(f) == 2 && strings.Contains(f[0], ".") && strings.HasPrefix(f[1], "v") {
			out[f[0]] = true
		}
	}
	return out
}

// explainedModules reads the first column of the table: full names, each in backquotes.
func explainedModules(doc string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(doc) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		for i, name := range strings.Split(strings.Split(line, "|")[1], "`") {
			if i%2 == 1 {
				out[name] = true
			}
		}
	}
	return out
}
