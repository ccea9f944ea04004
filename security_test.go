package gantry_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKnownAttacksAreTested: every test that docs/SPEC.md names for an attack is there.
func TestKnownAttacksAreTested(t *testing.T) {
	doc, err := os.ReadFile("docs/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "## Known attacks\n")
	if table, _, _ = strings.Cut(table, "\n## "); !ok {
		t.Fatal("docs/SPEC.md has no table of known attacks")
	}
	have := map[string]bool{}
	defined := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, dir := range []string{"oci", "engine/container"} {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(p, "_test.go") {
				return err
			}
			b, err := os.ReadFile(p)
			for _, m := range defined.FindAllStringSubmatch(string(b), -1) {
				have[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(table, -1)
	if len(named) < 20 {
		t.Errorf("only %d tests named", len(named))
	}
	for _, m := range named {
		if !have[m[1]] {
			t.Errorf("docs/SPEC.md names %s, which no package has", m[1])
		}
	}
}
