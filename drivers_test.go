package gantry

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// driverNames are the names of network drivers that code may be tempted to ask for.
func driverNames() []string {
	return []string{"bridge", "host", "null", "macvlan", "ipvlan", "overlay"}
}

// driverTable is the one file that names drivers.
const driverTable = "engine/drivers.go"

// TestNoDriverNames: what differs between network drivers is a fact in their descriptions.
// Nothing on the daemon's side compares with a driver's name, switches by it, or has a list or
// a table of them, but for the table of what there is.
func TestNoDriverNames(t *testing.T) {
	for _, p := range load(t) {
		if n := noun(p.dir); !strings.HasPrefix(n, "engine") && n != "server" {
			continue
		}
		for name, f := range p.files {
			if name == driverTable {
				continue
			}
			for _, at := range namedDrivers(f) {
				t.Errorf("%s: a driver's name decides something: make it a fact of driver.Description", p.fset.Position(at))
			}
		}
	}
}

// TestNoDriverNamesItself walks code whose answer is known.
func TestNoDriverNamesItself(t *testing.T) {
	for src, want := range map[string]int{
		`if n.Driver == "bridge" {}`:                   1,
		`if "null" != d {}`:                            1,
		`switch d { case "macvlan", "ipvlan": }`:       2,
		`slices.Contains([]string{"host"}, d)`:         1,
		`_ = map[string]bool{"overlay": true}[d]`:      1,
		`if d == "none" || string(raw) == "null" {}`:   0,
		`log.Warn("gone", "bridge", name)`:             0,
		`n.Driver = "null"; _ = []word{{"bridge", 1}}`: 0,
		`strings.EqualFold(d, "macvlan")`:              1,
		`if strings.HasPrefix(d, "ipvlan") { return }`: 1,
	} {
		t.Run(src, func(t *testing.T) {
			if got := len(namedDrivers(parseBody(t, src))); got != want {
				t.Errorf("%s: %d, want %d", src, got, want)
			}
		})
	}
}

// TestNetworksKnowNoDriver: drivers are told to engine/network by the table. Its packages, and
// everybody else, import none; tests do.
func TestNetworksKnowNoDriver(t *testing.T) {
	drivers := []string{"engine/network/bridge", "engine/network/vlan", "engine/network/remote"}
	for _, p := range load(t) {
		for imp, file := range p.imports {
			if to, ok := inModule(imp); ok && slices.Contains(drivers, to) && file != driverTable && !strings.HasSuffix(file, "_test.go") {
				t.Errorf("%s imports the driver %s: it belongs into the table in %s", file, to, driverTable)
			}
		}
	}
}

// namedDrivers are the places of a file where a driver's name decides something.
func namedDrivers(f *ast.File) (at []token.Pos) {
	names := driverNames()
	check := func(xs ...ast.Expr) {
		for _, x := range xs {
			lit, ok := x.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				continue
			}
			if s, err := strconv.Unquote(lit.Value); err == nil && slices.Contains(names, s) {
				at = append(at, lit.Pos())
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			// A conversion of raw JSON is compared with its null.
			if (n.Op == token.EQL || n.Op == token.NEQ) && !converted(n.X) && !converted(n.Y) {
				check(n.X, n.Y)
			}
		case *ast.CaseClause:
			check(n.List...)
		case *ast.CompositeLit:
			check(listed(n)...)
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "strings" {
					check(n.Args...)
				}
			}
		}
		return true
	})
	return at
}

// converted tells whether an expression is string(…).
func converted(x ast.Expr) bool {
	call, ok := x.(*ast.CallExpr)
	if !ok {
		return false
	}
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == "string"
}

// listed are the strings of a list of strings and the keys of a map by strings.
func listed(c *ast.CompositeLit) (out []ast.Expr) {
	str := func(x ast.Expr) bool { id, ok := x.(*ast.Ident); return ok && id.Name == "string" }
	switch typ := c.Type.(type) {
	case *ast.ArrayType:
		if str(typ.Elt) {
			return c.Elts
		}
	case *ast.MapType:
		for _, e := range c.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok && str(typ.Key) {
				out = append(out, kv.Key)
			}
		}
	}
	return out
}

func parseBody(t *testing.T, body string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nfunc f() {\n"+body+"\n}\n", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
