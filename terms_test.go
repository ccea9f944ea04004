package gantry

import (
	"go/ast"
	"os"
	"strings"
	"testing"
	"unicode"
)

// TestTermsExist: what docs/TERMS.md says of where a term lives is there: a path, or a package
// with a declaration (`dir.Name`), or a type with a method (`dir.Type.Method`).
func TestTermsExist(t *testing.T) {
	doc, err := os.ReadFile("docs/TERMS.md")
	if err != nil {
		t.Fatal(err)
	}
	names := declaredNames(load(t))
	seen := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[3]) == "where" {
			continue
		}
		t.Run(strings.TrimSpace(cells[1]), func(t *testing.T) {
			if seen[cells[1]] {
				t.Error("the term has two lines")
			}
			seen[cells[1]] = true
			places := quoted(cells[3])
			if len(places) == 0 {
				t.Error("nothing says where it is")
			}
			for _, place := range places {
				if _, err := os.Stat(place); err != nil && !names[place] {
					t.Errorf("%s is neither a path nor declared", place)
				}
			}
		})
	}
	if len(seen) == 0 {
		t.Error("no term found")
	}
}

// privateWords are nouns that the field has another word for; docs/TERMS.md says which.
func privateWords() []string {
	return []string{"wish", "keeper", "plumb", "plug", "adapt", "unfit", "forkstart", "forkexecer"}
}

// TestPrivateWordsStayAway: no package, type, function or method has one of the words in its name.
func TestPrivateWordsStayAway(t *testing.T) {
	for name := range declaredNames(load(t)) {
		for _, word := range camelWords(name) {
			for _, private := range privateWords() {
				if word == private || word == private+"s" {
					t.Errorf("%s: docs/TERMS.md has another word for %q", name, private)
				}
			}
		}
	}
}

// quoted are the words of a cell that stand in backquotes.
func quoted(cell string) (out []string) {
	for i, part := range strings.Split(cell, "`") {
		if i%2 == 1 {
			out = append(out, part)
		}
	}
	return out
}

// declaredNames are the declarations at the top level of all packages: "dir.Name", and
// "dir.Type.Method" for methods, those of interfaces included.
func declaredNames(pkgs []*pkg) map[string]bool {
	names := map[string]bool{}
	for _, p := range pkgs {
		for _, f := range p.files {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					name := d.Name.Name
					if d.Recv != nil {
						name = typeName(d.Recv.List[0].Type) + "." + name
					}
					names[p.dir+"."+name] = true
				case *ast.GenDecl:
					addSpecs(names, p.dir, d.Specs)
				}
			}
		}
	}
	return names
}

func addSpecs(names map[string]bool, dir string, specs []ast.Spec) {
	for _, s := range specs {
		ts, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		names[dir+"."+ts.Name.Name] = true
		if methods := methodsOf(ts); methods != nil {
			for _, m := range methods.List {
				for _, n := range m.Names {
					names[dir+"."+ts.Name.Name+"."+n.Name] = true
				}
			}
		}
	}
}

// camelWords splits a path of identifiers into its words, in lower case.
func camelWords(name string) []string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) || !unicode.IsLetter(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return strings.FieldsFunc(b.String(), func(r rune) bool { return !unicode.IsLetter(r) })
}
