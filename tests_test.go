package gantry

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// allowedSleeps are calls of time.Sleep in tests by file: how many, and why nothing better
// serves. Inside the process testing/synctest makes time pass; what others do is polled for
// (test/poll).
func allowedSleeps() map[string]struct {
	calls  int
	reason string
} {
	return map[string]struct {
		calls  int
		reason string
	}{
		"engine/container/health_test.go":   {1, "a helper of tests that run in a synctest bubble"},
		"logs/ring_test.go":                 {1, "a slow writer of tests that run in a synctest bubble"},
		"engine/network/path_ratio_test.go": {1, "a benchmark counts what is on its way between two kernels' queues"},
		"shim/shimd/faults_test.go":         {1, "kills at another instant in each round"},
		"shim/shimd/server_test.go":         {1, "measures an idle process, on request only"},
		"test/e2e/storm_test.go":            {2, "clients of a daemon that is down wait as real ones do"},
		"test/e2e/tools_test.go":            {1, "plays a slow line"},
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	left := allowedSleeps()
	eachTestFile(t, func(name string, fset *token.FileSet, f *ast.File) {
		calls := 0
		ast.Inspect(f, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch calledName(c) {
			case "synctest.Test":
				return false // time in there is not real
			case "time.Sleep":
				calls++
				if calls > left[name].calls {
					t.Errorf("%s: time.Sleep: use testing/synctest, or test/poll where another process is involved", fset.Position(c.Pos()))
				}
			}
			return true
		})
		if allowed, ok := left[name]; ok && calls == allowed.calls {
			delete(left, name)
		}
	})
	for name := range left {
		t.Errorf("allowedSleeps: %s sleeps less often", name)
	}
}

// allowedLoops are functions with tables whose rows are no subtests, and why.
func allowedLoops() map[string]string {
	return map[string]string{
		"oci/unified_test.go TestUnifiedWeight": "one of two files is there, and the first to be found decides",
	}
}

// TestTablesAreRun: the rows of a table are subtests, so that each can fail, and be run, by
// itself. A table is a literal list of structs, or a map, that a loop with a check goes over.
func TestTablesAreRun(t *testing.T) {
	left := allowedLoops()
	eachTestFile(t, func(name string, fset *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			fd, ok := d.(*ast.FuncDecl)
			if !ok || fd.Body == nil || fd.Recv != nil || !strings.HasPrefix(fd.Name.Name, "Test") || ownThread(fd) {
				continue
			}
			for _, r := range bareLoops(fd) {
				key := name + " " + fd.Name.Name
				if _, ok := allowedLoops()[key]; !ok {
					t.Errorf("%s: %s loops over a table without t.Run", fset.Position(r.Pos()), fd.Name.Name)
				}
				delete(left, key)
			}
		}
	})
	for key := range left {
		t.Errorf("allowedLoops: there is no such loop: %s", key)
	}
}

// ownThread says that a test keeps to its thread, or to a bubble: subtests would leave it.
func ownThread(fd *ast.FuncDecl) (own bool) {
	ast.Inspect(fd.Body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			name := calledName(c)
			switch name[strings.LastIndexByte(name, '.')+1:] {
			case "LockOSThread", "Unshare", "Setns", "inNewNetns", "newNetns":
				own = true
			}
			own = own || name == "synctest.Test"
		}
		return true
	})
	return own
}

// bareLoops are the outermost loops over tables that check something without t.Run.
func bareLoops(fd *ast.FuncDecl) (out []*ast.RangeStmt) {
	tables := map[string]bool{}
	ast.Inspect(fd.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if id, ok := n.Lhs[0].(*ast.Ident); ok && len(n.Rhs) == 1 && isTable(n.Rhs[0]) {
				tables[id.Name] = true
			}
		case *ast.CallExpr:
			return calledName(n) != "t.Run"
		case *ast.RangeStmt:
			id, _ := n.X.(*ast.Ident)
			if !isTable(n.X) && (id == nil || !tables[id.Name]) {
				return true
			}
			if checks, runs := calls(n.Body); checks && !runs {
				out = append(out, n)
				return false
			}
		}
		return true
	})
	return out
}

func isTable(x ast.Expr) bool {
	lit, ok := x.(*ast.CompositeLit)
	if !ok || len(lit.Elts) == 0 {
		return false
	}
	switch typ := lit.Type.(type) {
	case *ast.MapType:
		_, pointers := typ.Key.(*ast.StarExpr)
		return !pointers
	case *ast.ArrayType:
		_, structs := typ.Elt.(*ast.StructType)
		return structs
	}
	return false
}

func calls(n ast.Node) (checks, runs bool) {
	ast.Inspect(n, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			switch calledName(c) {
			case "t.Error", "t.Errorf", "t.Fatalf":
				checks = true
			case "t.Run":
				runs = true
			}
		}
		return true
	})
	return checks, runs
}

// calledName is the name of a function as it is written, with its package or receiver.
func calledName(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return "." + f.Sel.Name
	}
	return ""
}

func eachTestFile(t *testing.T, do func(name string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parsing: %w", err)
		}
		do(filepath.ToSlash(name), fset, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
