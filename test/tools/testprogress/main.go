// Command testprogress reads what `go test -json` prints and writes for people: a line for each
// test as it ends, the output of those that failed, and a line that counts at the end.
// Its status is 1 when a test or a package failed, or none ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testprogress:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type counts struct{ passed, failed, skipped int }

// report copies events from in to out, and tells whether tests ran and none failed.
func report(in io.Reader, out io.Writer) (bool, error) {
	output := map[string][]string{} // by package and test, of those that run
	var n counts
	broken := false
	failed := map[string]bool{}
	parents := map[string]bool{} // of subtests: what they say counts, not the parent's sum
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil { // what is no event: go's own words
			fmt.Fprintln(out, s.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			output[key] = append(output[key], e.Output)
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				broken = broken || e.Action == "fail"
				if e.Action == "fail" && len(failed) == 0 { // it failed as a whole: by a panic, out of time
					for _, key := range sorted(output) {
						fmt.Fprint(out, strings.Join(output[key], ""))
					}
				}
				continue
			}
			if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
				parents[e.Test[:i]] = true
			}
			if parents[e.Test] && (e.Action != "fail" || len(failed) > 0) {
				continue
			}
			line := fmt.Sprintf("%-4s %s (%v)", e.Action, e.Test, time.Duration(e.Elapsed*float64(time.Second)).Round(10*time.Millisecond))
			n.add(e.Action)
			if e.Action == "fail" {
				failed[e.Test] = true
				line += "\n" + strings.Join(output[key], "")
			}
			fmt.Fprintln(out, strings.TrimSuffix(line, "\n"))
			delete(output, key)
		}
	}
	for _, name := range sorted(failed) {
		fmt.Fprintln(out, "failed:", name)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", n.passed, n.failed, n.skipped)
	return !broken && n.failed == 0 && n.passed > 0, s.Err()
}

func (n *counts) add(action string) {
	switch action {
	case "pass":
		n.passed++
	case "fail":
		n.failed++
	case "skip":
		n.skipped++
	}
}

func sorted[V any](set map[string]V) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
