package gantry

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/gantry/gantry"

// pkg is one directory of Go files, parsed here: `go list` in a test would be
// answered out of a cache that does not see every change.
type pkg struct {
	dir     string // relative to the module, "." for the root
	imports map[string]string
	files   map[string]*ast.File // no test files
	fset    *token.FileSet
}

// rows of the module from top to bottom. A package may import packages of lower
// rows; within its own row only what siblings() lists.
func row(dir string) int {
	switch top, rest, _ := strings.Cut(dir, "/"); top {
	case "cmd", "test", ".":
		return 0
	case "cli", "compose":
		return 1
	case "server":
		return 2
	case "engine":
		if rest == "" {
			return 3
		}
		return 4
	case "logs", "distribution", "registry", "shim", "storage", "oci":
		return 5
	case "api", "internal":
		return 6
	}
	return -1
}

// noun is the unit inside which packages import each other freely: oci and
// oci/init, engine/container and engine/container/fsm.
func noun(dir string) string {
	parts := strings.Split(dir, "/")
	if parts[0] == "engine" && len(parts) > 1 {
		return "engine/" + parts[1]
	}
	if parts[0] == "cmd" && len(parts) > 1 {
		return "cmd/" + parts[1]
	}
	return parts[0]
}

// siblings are the only edges between nouns of one row.
func siblings() map[string][]string {
	return map[string][]string{
		"engine/swarm":     {"engine/container", "engine/image", "engine/network", "engine/volume"},
		"engine/container": {"engine/image", "engine/network", "engine/volume"},
		"engine/build":     {"engine/image", "engine/network"},
		"engine/network":   {"engine/plugin"},
		"engine/volume":    {"engine/plugin"},
		"shim":             {"oci", "logs"}, // it runs containers and writes their logs
		"compose":          {"cli"},
		"cli":              {"compose"}, // `docker compose` is a command
		".":                {"test", "cmd"},
	}
}

// clientSide packages know the API and never the engine.
func clientSide(n string) bool { return n == "cli" || n == "compose" }

func mayImport(from, to string) error {
	rf, rt := row(from), row(to)
	nf, nt := noun(from), noun(to)
	switch {
	case rf < 0 || rt < 0:
		return fmt.Errorf("%s → %s: a directory that has no row in the import law", from, to)
	case nf == nt:
		return nil
	case clientSide(nf) && rt < 6 && !clientSide(nt):
		return fmt.Errorf("%s → %s: the client side knows the API only", from, to)
	case !clientSide(nf) && rf > 0 && clientSide(nt):
		return fmt.Errorf("%s → %s: the daemon side never imports the client side", from, to)
	case rt > rf || slices.Contains(siblings()[nf], nt):
		return nil
	case rt == rf:
		return fmt.Errorf("%s → %s: siblings do not import each other", from, to)
	}
	return fmt.Errorf("%s → %s: nothing calls up", from, to)
}

func TestImportLaw(t *testing.T) {
	for _, p := range load(t) {
		for imp, file := range p.imports {
			if to, ok := inModule(imp); ok {
				if err := mayImport(p.dir, to); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
}

// TestImportLawItself walks edges whose answer is known, so that a hole in the law shows.
func TestImportLawItself(t *testing.T) {
	for _, e := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/docker", "cli", true},
		{"cmd/dockerd", "server", true},
		{"cli/container", "api/stream", true},
		{"cli/container", "cli/terminal", true},
		{"cli/container", "engine/container", false},
		{"cli", "oci", false},
		{"cli", "server", false},
		{"server", "cli", false},
		{"server", "engine/container", true},
		{"engine", "engine/container", true},
		{"engine", "server", false},
		{"engine/container", "engine", false},
		{"engine/container", "engine/network", true},
		{"engine/container/fsm", "engine/image", true},
		{"engine/network", "engine/container", false},
		{"engine/image", "engine/network", false},
		{"engine/image", "storage", true},
		{"storage", "engine/image", false},
		{"storage", "oci", false},
		{"shim", "oci", true},
		{"shim", "logs/jsonfile", true},
		{"oci", "shim", false},
		{"logs", "shim", false},
		{"logs/jsonfile", "logs/logfile", true},
		{"logs/local", "engine/container", false},
		{"logs", "storage", false},
		{"engine/container", "logs", true},
		{"storage", "shim", false},
		{"distribution", "storage", false},
		{"engine/container", "shim", true},
		{"engine/volume", "engine/plugin", true},
		{"engine/plugin", "engine/volume", false},
		{"engine/build", "engine/volume", false},
		{"engine/swarm", "engine/volume", true},
		{"oci", "storage", false},
		{"oci", "internal/id", true},
		{"internal/id", "oci", false},
		{"api/stream", "server", false},
		{"api/stream", "internal/id", false},
		{"internal/id", "api/stream", false},
		{"surprise", "oci", false},
	} {
		t.Run(e.from+" "+e.to, func(t *testing.T) {
			if err := mayImport(e.from, e.to); (err == nil) != e.ok {
				t.Errorf("%s → %s: %v, want allowed=%v", e.from, e.to, err, e.ok)
			}
		})
	}
}

// containerRanks are the packages below engine/container from top to bottom: each imports only
// packages of lower ranks, so that nothing calls up inside either.
func containerRanks() map[string]int {
	ranks := map[string]int{}
	for rank, names := range []string{
		"engine/container", "task query", "exec", "stream bundle validate filesystem",
		"links hostdev health logs", "store", "fsm mounts spec userdb",
	} {
		for name := range strings.FieldsSeq(names) {
			ranks[path.Join("engine/container", strings.TrimPrefix(name, "engine/container"))] = rank
		}
	}
	return ranks
}

func TestContainerArrowsGoDown(t *testing.T) {
	ranks := containerRanks()
	for _, p := range load(t) {
		if noun(p.dir) != "engine/container" {
			continue
		}
		rank, ok := ranks[p.dir]
		if !ok {
			t.Errorf("%s has no rank", p.dir)
		}
		for imp, file := range p.imports {
			to, _ := inModule(imp)
			if below, ok := ranks[to]; ok && to != p.dir && below <= rank {
				t.Errorf("%s: %s → %s: nothing calls up", file, p.dir, to)
			}
		}
	}
}

// TestBinariesStaySmall holds what the small binaries must never link, by walking
// the imports of our own packages from each main.
func TestBinariesStaySmall(t *testing.T) {
	pkgs := load(t)
	byDir := map[string]*pkg{}
	for _, p := range pkgs {
		byDir[p.dir] = p
	}
	for main, banned := range map[string][]string{
		// It holds every container and starts in about a millisecond.
		"cmd/gantry-runtime": {
			"net/http", "github.com/moby/moby/", "github.com/containerd/containerd/", "github.com/spf13/cobra",
			"github.com/google/nftables", "github.com/vishvananda/netlink", "go.etcd.io/",
			// Its generator brings megabytes of state.
			"crypto/rand",
		},
		// It starts in at most five milliseconds.
		"cmd/docker": {
			"github.com/containerd/containerd/", "github.com/opencontainers/cgroups", "github.com/google/nftables",
			"github.com/vishvananda/netlink", "go.etcd.io/", "github.com/miekg/dns",
		},
	} {
		t.Run(main, func(t *testing.T) {
			seen := map[string]bool{}
			var walk func(dir, via string)
			walk = func(dir, via string) {
				if seen[dir] || byDir[dir] == nil {
					return
				}
				seen[dir] = true
				for imp := range byDir[dir].imports {
					if to, ok := inModule(imp); ok {
						walk(to, via+" → "+to)
						continue
					}
					for _, b := range banned {
						if imp == b || strings.HasPrefix(imp, strings.TrimSuffix(b, "/")+"/") {
							t.Errorf("%s imports %s", via, imp)
						}
					}
				}
			}
			walk(main, main)
		})
	}
}

// allowedVars are package variables that are not constant by nature, with their reason.
func allowedVars() map[string]string {
	return map[string]string{
		"internal/version.Version":   "set by the linker, never written by the program",
		"internal/version.Commit":    "set by the linker, never written by the program",
		"internal/version.BuildTime": "set by the linker, never written by the program",
		"oci/launch/entry.slack":     "set by the program's first instructions, before Go's runtime begins",
	}
}

// TestNoInitNoPackageVariables: no registration behind the reader's back, and no state
// in packages. Constant by nature, and so allowed: sentinel errors, compiled regular
// expressions, addresses, embedded files, interface assertions; unexported tables
// that nothing in their package writes; facts computed once (sync.OnceValue); pools
// of scratch memory.
func TestNoInitNoPackageVariables(t *testing.T) {
	allowed := allowedVars()
	for _, p := range load(t) {
		written := writtenNames(p)
		for name, f := range p.files {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						t.Errorf("%s: func init: registration belongs into one visible table", name)
					}
				case *ast.GenDecl:
					if d.Tok != token.VAR {
						continue
					}
					for _, v := range mutableVars(d, written) {
						key := p.dir + "." + v
						if _, ok := allowed[key]; !ok {
							t.Errorf("%s: package variable %s: pass it, or make it a constant or a function", name, v)
						}
						delete(allowed, key)
					}
				}
			}
		}
	}
	for key := range allowed {
		t.Errorf("allowedVars lists %s, which is not there any more", key)
	}
}

func mutableVars(d *ast.GenDecl, written map[string]bool) (names []string) {
	if d.Doc != nil {
		for _, c := range d.Doc.List {
			if strings.HasPrefix(c.Text, "//go:embed") {
				return nil
			}
		}
	}
	for _, s := range d.Specs {
		vs, ok := s.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for i, id := range vs.Names {
			if id.Name == "_" {
				continue
			}
			if i < len(vs.Values) && !written[id.Name] && constantByNature(id.Name, vs.Values[i]) {
				continue
			}
			names = append(names, id.Name)
		}
	}
	return names
}

func constantByNature(name string, v ast.Expr) bool {
	sentinel := strings.HasPrefix(name, "Err") || strings.HasPrefix(name, "err")
	switch v := v.(type) {
	case *ast.SelectorExpr: // another package's sentinel
		return sentinel && strings.HasPrefix(v.Sel.Name, "Err")
	case *ast.CompositeLit:
		return !ast.IsExported(name) && tableOrPool(v)
	case *ast.CallExpr:
		if _, ok := v.Fun.(*ast.FuncLit); ok {
			return !ast.IsExported(name) // a table that is computed
		}
		sel, ok := v.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return false
		}
		fn := x.Name + "." + sel.Sel.Name
		switch {
		case fn == "regexp.MustCompile", strings.HasPrefix(fn, "netip.MustParse"), strings.HasPrefix(fn, "sync.OnceValue"):
			return true
		}
		return sentinel && (fn == "errors.New" || fn == "fmt.Errorf" || x.Name == "errclass")
	}
	return false
}

func tableOrPool(v *ast.CompositeLit) bool {
	switch typ := v.Type.(type) {
	case *ast.ArrayType, *ast.MapType:
		return true
	case *ast.SelectorExpr:
		x, ok := typ.X.(*ast.Ident)
		return ok && x.Name == "sync" && typ.Sel.Name == "Pool"
	}
	return false
}

// writtenNames are the names that anything in the package assigns to, takes the
// address of, or clears: by name only, which can only forbid too much.
func writtenNames(p *pkg) map[string]bool {
	written := map[string]bool{}
	mark := func(x ast.Expr) {
		for {
			switch e := x.(type) {
			case *ast.IndexExpr:
				x = e.X
			case *ast.SelectorExpr:
				x = e.X
			case *ast.ParenExpr:
				x = e.X
			case *ast.Ident:
				written[e.Name] = true
				return
			default:
				return
			}
		}
	}
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, l := range n.Lhs {
						mark(l)
					}
				}
			case *ast.IncDecStmt:
				mark(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					mark(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
					mark(n.Args[0])
				}
			}
			return true
		})
	}
	return written
}

// Sizes are orientation: above the first figure the test says so, above the second it fails,
// without exceptions.
const (
	pkgSay, pkgFail   = 1500, 3000
	fileSay, fileFail = 600, 900
	funcSay, funcFail = 80, 140
	methodsFail       = 40
)

func TestSizes(t *testing.T) {
	pkgs := load(t)
	for _, p := range pkgs {
		total := 0
		for name, f := range p.files {
			lines := p.fset.Position(f.End()).Line
			total += lines
			size(t, name, "file", lines, fileSay, fileFail)
			for _, d := range f.Decls {
				fd, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				n := p.fset.Position(fd.End()).Line - p.fset.Position(fd.Pos()).Line + 1
				size(t, name+": "+fd.Name.Name, "function", n, funcSay, funcFail)
			}
		}
		size(t, p.dir, "package", total, pkgSay, pkgFail)
	}
	for typ, n := range methodCounts(pkgs) {
		size(t, typ, "method count", n, methodsFail, methodsFail)
	}
}

// typeDecl is what counts for one named type: what it brings itself, and what it embeds.
type typeDecl struct {
	methods   []string // of its own, or of the interface
	functions int      // of its package, whose first parameter it is: methods in disguise
	embeds    []string // "dir.Type", of this module only
}

// methodCounts are the methods of all types, by "dir.Type": their own, those that embedding
// brings, and the functions of their package whose first parameter they are.
func methodCounts(pkgs []*pkg) map[string]int {
	types := map[string]*typeDecl{}
	for _, p := range pkgs {
		for _, f := range p.files {
			for _, d := range f.Decls {
				if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.TYPE {
					for _, s := range d.Specs {
						if ts, ok := s.(*ast.TypeSpec); ok {
							types[p.dir+"."+ts.Name.Name] = declOf(p, f, ts)
						}
					}
				}
			}
		}
	}
	for _, p := range pkgs {
		for _, f := range p.files {
			for _, d := range f.Decls {
				if fd, ok := d.(*ast.FuncDecl); ok {
					countFunc(types, p, fd)
				}
			}
		}
	}
	counts := map[string]int{}
	for key, decl := range types {
		counts[key] = len(methodSet(types, key, map[string]bool{})) + decl.functions
	}
	return counts
}

func countFunc(types map[string]*typeDecl, p *pkg, fd *ast.FuncDecl) {
	if fd.Recv != nil {
		if decl := types[p.dir+"."+typeName(fd.Recv.List[0].Type)]; decl != nil {
			decl.methods = append(decl.methods, fd.Name.Name)
		}
		return
	}
	if params := fd.Type.Params.List; len(params) > 0 {
		if decl := types[p.dir+"."+typeName(params[0].Type)]; decl != nil {
			decl.functions++
		}
	}
}

// declOf reads what a type embeds and, of an interface, its methods.
func declOf(p *pkg, f *ast.File, ts *ast.TypeSpec) *typeDecl {
	decl := &typeDecl{}
	var fields *ast.FieldList
	switch typ := ts.Type.(type) {
	case *ast.StructType:
		fields = typ.Fields
	case *ast.InterfaceType:
		fields = typ.Methods
	default:
		return decl
	}
	for _, field := range fields.List {
		for _, n := range field.Names {
			if fields == methodsOf(ts) {
				decl.methods = append(decl.methods, n.Name)
			}
		}
		if len(field.Names) == 0 {
			if dir, name := embedded(p, f, field.Type); name != "" {
				decl.embeds = append(decl.embeds, dir+"."+name)
			}
		}
	}
	return decl
}

// methodsOf are the methods of an interface; nil for others.
func methodsOf(ts *ast.TypeSpec) *ast.FieldList {
	if typ, ok := ts.Type.(*ast.InterfaceType); ok {
		return typ.Methods
	}
	return nil
}

// embedded names an embedded type of this module; "" for others.
func embedded(p *pkg, f *ast.File, x ast.Expr) (dir, name string) {
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	sel, ok := x.(*ast.SelectorExpr)
	if !ok {
		return p.dir, typeName(x)
	}
	from, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	for _, s := range f.Imports {
		imp, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue
		}
		local := path.Base(imp)
		if s.Name != nil {
			local = s.Name.Name
		}
		if to, ok := inModule(imp); ok && local == from.Name {
			return to, sel.Sel.Name
		}
	}
	return "", ""
}

// methodSet are the names of a type's methods, those of what it embeds included; from
// another package only exported ones come.
func methodSet(types map[string]*typeDecl, key string, seen map[string]bool) map[string]bool {
	set := map[string]bool{}
	decl := types[key]
	if decl == nil || seen[key] {
		return set
	}
	seen[key] = true
	for _, m := range decl.methods {
		set[m] = true
	}
	for _, e := range decl.embeds {
		for m := range methodSet(types, e, seen) {
			if ast.IsExported(m) || dirOf(e) == dirOf(key) {
				set[m] = true
			}
		}
	}
	return set
}

func dirOf(key string) string { return key[:strings.LastIndexByte(key, '.')] }

// TestMethodsAreCounted counts methods of types whose number is known, so that a way around
// the law shows.
func TestMethodsAreCounted(t *testing.T) {
	fset := token.NewFileSet()
	parse := func(dir, src string) *pkg {
		f, err := parser.ParseFile(fset, dir+"/x.go", src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		return &pkg{dir: dir, files: map[string]*ast.File{dir + "/x.go": f}, fset: fset}
	}
	got := methodCounts([]*pkg{
		parse("a", `package a
			import "`+module+`/b"
			type Plain struct{}
			func (Plain) One() {}
			func (*Plain) two() {}
			func three(p *Plain) {}
			func four(x int, p Plain) {}
			type Embeds struct { *Plain; n int }
			func (Embeds) One() {}
			type Far struct { b.Other }
			type List[T any] struct{}
			func (*List[T]) Add() {}
			func Sort[T any](l *List[T]) {}
			type Iface interface { A(); B(); Small }
			type Small interface { C() }
			type Holds struct { Iface }`),
		parse("b", `package b
			type Other struct{}
			func (Other) Seen() {}
			func (Other) hidden() {}`),
	})
	for typ, want := range map[string]int{
		"a.Plain": 3, "a.Embeds": 2, "a.Far": 1, "b.Other": 2, "a.List": 2, "a.Iface": 3, "a.Holds": 3,
	} {
		t.Run(typ, func(t *testing.T) {
			if got[typ] != want {
				t.Errorf("%s has %d methods, want %d", typ, got[typ], want)
			}
		})
	}
}

func size(t *testing.T, what, kind string, n, say, fail int) {
	t.Helper()
	switch {
	case n > fail:
		t.Errorf("%s: %s of %d, more than %d", what, kind, n, fail)
	case n > say:
		t.Logf("%s: %s of %d (orientation: %d)", what, kind, n, say)
	}
}

// typeName is the name of a type of the package at hand, behind pointers and type arguments;
// "" for others.
func typeName(x ast.Expr) string {
	for {
		switch t := x.(type) {
		case *ast.StarExpr:
			x = t.X
		case *ast.IndexExpr:
			x = t.X
		case *ast.IndexListExpr:
			x = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

func inModule(imp string) (dir string, ok bool) {
	if imp == module {
		return ".", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// load parses every package of the module. Imports of test files count for the law
// as those of the package do, save that a test may use the test/ tree.
func load(t *testing.T) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		return addFile(fset, byDir, name)
	})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*pkg, 0, len(byDir))
	for _, p := range byDir {
		all = append(all, p)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].dir < all[j].dir })
	return all
}

func addFile(fset *token.FileSet, byDir map[string]*pkg, name string) error {
	src, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(name, "_test.go")
	mode := parser.ParseComments | parser.SkipObjectResolution
	if test {
		mode = parser.ImportsOnly
	}
	f, err := parser.ParseFile(fset, name, src, mode)
	if err != nil {
		return err
	}
	dir := path.Clean(filepath.ToSlash(filepath.Dir(name)))
	p := byDir[dir]
	if p == nil {
		p = &pkg{dir: dir, imports: map[string]string{}, files: map[string]*ast.File{}, fset: fset}
		byDir[dir] = p
	}
	if !test {
		p.files[name] = f
	}
	for _, s := range f.Imports {
		imp, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			return err
		}
		if to, ok := inModule(imp); test && ok && strings.HasPrefix(to, "test/") {
			continue
		}
		if _, seen := p.imports[imp]; !seen || !test {
			p.imports[imp] = name
		}
	}
	return nil
}
