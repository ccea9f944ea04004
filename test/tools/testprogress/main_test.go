package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		run     = `{"Action":"run","Package":"p","Test":"TestA"}` + "\n"
		said    = `{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}` + "\n"
		pass    = `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1.234}` + "\n"
		fail    = `{"Action":"fail","Package":"p","Test":"TestA","Elapsed":1}` + "\n"
		skip    = `{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}` + "\n"
		allPass = `{"Action":"pass","Package":"p","Elapsed":2}` + "\n"
		allFail = `{"Action":"fail","Package":"p","Elapsed":2}` + "\n"
		broken  = `{"Action":"build-output","ImportPath":"p","Output":"x.go:1: no\n"}` + "\n"
		panicky = `{"Action":"output","Package":"p","Output":"panic: it\n"}` + "\n"
	)
	const sub = `{"Action":"pass","Package":"p","Test":"TestA/one","Elapsed":1}` + "\n"
	for name, c := range map[string]struct {
		in, out string
		ok      bool
	}{
		"passed":          {run + said + pass + allPass, "pass TestA (1.23s)\n1 passed, 0 failed, 0 skipped\n", true},
		"parent":          {sub + pass + allPass, "pass TestA/one (1s)\n1 passed, 0 failed, 0 skipped\n", true},
		"failed":          {run + said + fail + allFail, "fail TestA (1s)\nwhy\nfailed: TestA\n0 passed, 1 failed, 0 skipped\n", false},
		"skipped":         {skip + run + pass + allPass, "skip TestB (0s)\npass TestA (1.23s)\n1 passed, 0 failed, 1 skipped\n", true},
		"none ran":        {skip + allPass, "skip TestB (0s)\n0 passed, 0 failed, 1 skipped\n", false},
		"does not build":  {broken + allFail, "x.go:1: no\n0 passed, 0 failed, 0 skipped\n", false},
		"ends in between": {run + pass + panicky + allFail, "pass TestA (1.23s)\npanic: it\n1 passed, 0 failed, 0 skipped\n", false},
		"not of a test":   {"go: downloading\n" + run + pass + allPass, "go: downloading\npass TestA (1.23s)\n1 passed, 0 failed, 0 skipped\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(c.in), &out)
			if err != nil || ok != c.ok || out.String() != c.out {
				t.Errorf("%v %v\n%s", ok, err, out.String())
			}
		})
	}
}
