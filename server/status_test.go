package server

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var updateStatus = flag.Bool("update-status", false, "write the list of endpoints into docs/STATUS.md")

const (
	statusFile  = "../docs/STATUS.md"
	statusBegin = "<!-- endpoints: go test ./server -run TestStatus -update-status -->\n"
	statusEnd   = "<!-- end of endpoints -->\n"
)

// docs/STATUS.md lists the endpoints as the routing table has them.
func TestStatusListsTheEndpoints(t *testing.T) {
	data, err := os.ReadFile(statusFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), statusBegin)
	got, after, ok2 := strings.Cut(rest, statusEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", statusFile, statusBegin, statusEnd)
	}
	want := endpointTable(serve(t).Server)
	if got == want {
		return
	}
	if !*updateStatus {
		t.Fatalf("%s is not what the routes say; run: go test ./server -run TestStatus -update-status", statusFile)
	}
	if err := os.WriteFile(statusFile, []byte(before+statusBegin+want+statusEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func endpointTable(s *Server) string {
	built, missing := map[string][]string{}, map[string][]string{}
	unbuilt := map[string]bool{}
	for _, r := range unbuiltRoutes() {
		unbuilt[r.method+" "+r.pattern] = true
	}
	for _, r := range s.routes() {
		into := built
		if unbuilt[r.method+" "+r.pattern] {
			into = missing
		}
		noun := "/" + splitPath(r.pattern)[0]
		into[noun] = append(into[noun], "`"+r.method+" "+strings.ReplaceAll(r.pattern, "...", "")+"`")
	}
	nouns := map[string]bool{}
	for _, m := range []map[string][]string{built, missing} {
		for n := range m {
			nouns[n] = true
		}
	}
	var b strings.Builder
	b.WriteString("| group | answers | 501 |\n|---|---|---|\n")
	list := make([]string, 0, len(nouns))
	for n := range nouns {
		list = append(list, n)
	}
	slices.Sort(list)
	for _, n := range list {
		slices.Sort(built[n])
		slices.Sort(missing[n])
		fmt.Fprintf(&b, "| %s | %s | %s |\n", n, strings.Join(slices.Compact(built[n]), ", "), strings.Join(slices.Compact(missing[n]), ", "))
	}
	return b.String()
}
