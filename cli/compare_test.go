package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/cli"
	"github.com/gantry/gantry/cli/clitest"
)

// The test binary is also our docker: so no test needs a build.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_DOCKER") == "1" {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// realDocker is Docker's own client, built by `make deps` at a pinned version.
func realDocker(t *testing.T) string {
	t.Helper()
	p := os.Getenv("GANTRY_REAL_DOCKER")
	if p == "" {
		p = "../.cache/tools/bin/docker"
	}
	p, err := filepath.Abs(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("Docker's own client is missing: `make deps` builds it (%v)", err)
	}
	return p
}

type outcome struct {
	stdout, stderr string
	code           int
	reqs           []string
}

// runCLI runs one command line against a fresh fake engine, in a directory with the files
// the cases name.
func runCLI(t *testing.T, bin string, c cmdline) outcome {
	t.Helper()
	return runOn(t, clitest.New(t), bin, c)
}

func runOn(t *testing.T, e *clitest.Engine, bin string, c cmdline) outcome {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"env": "A=1\n# no\n\nB = 2x\nFROM_ENV\nNOT_SET\n", "goodenv": "A=1\n# no\n\nB=2 3\nFROM_ENV\nNOT_SET\n",
		"labels": "l1=v\nl2\n", "seccomp.json": "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n", "badjson": "{",
		"cid": "x", "archive.tar": "TAR",
		"config/config.json": c.config,
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, c.args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=/root", "TZ=UTC", "DOCKER_CONFIG=" + filepath.Join(dir, "config"),
		"DOCKER_HOST=unix://" + e.Socket, "GANTRY_TEST_DOCKER=1", "FROM_ENV=here",
	}, c.env...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	clean := func(s string) string {
		return strings.NewReplacer(e.Socket, "SOCK", dir, "DIR").Replace(s)
	}
	o := outcome{stdout: clean(out.String()), stderr: clean(errb.String()), code: cmd.ProcessState.ExitCode()}
	detached := slices.ContainsFunc(c.args, func(a string) bool { return a == "-d" || a == "-dit" })
	for _, r := range e.Requests() {
		// Docker asks for the exit code even where it does not wait for it.
		if detached && strings.HasSuffix(r.Path, "/wait") {
			continue
		}
		r.Query = strings.Replace(r.Query, "&tail=all", "", 1)
		o.reqs = append(o.reqs, clean(fmt.Sprintf("%s %s?%s %s %s", r.Method, r.Path, r.Query, r.Body, r.Auth)))
	}
	if slices.Contains(c.args, "images") || (c.args[0] == "image" && slices.Contains(c.args, "ls")) {
		// Docker shows the names of an image in any order.
		lines := strings.Split(o.stdout, "\n")
		sort.Strings(lines)
		o.stdout = strings.Join(lines, "\n")
	}
	// attach and wait are sent side by side.
	sort.Strings(o.reqs)
	return o
}

type cmdline struct {
	args   []string
	stdin  string
	env    []string
	config string
	// different names what is known to differ: "out", "err", "req", with the reason in a
	// comment beside it.
	different string
}

func words(lines string) []cmdline {
	var out []cmdline
	for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
		out = append(out, cmdline{args: strings.Split(strings.TrimSpace(l), " ")})
	}
	return out
}

func TestSameAsDocker(t *testing.T) {
	docker := realDocker(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	known := knownDifferences()
	for _, c := range commandLines() {
		c.different = known[strings.Join(c.args, " ")]
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			want, got := runCLI(t, docker, c), runCLI(t, self, c)
			if want.code != got.code && !strings.Contains(c.different, "code") {
				t.Errorf("exit code %d, Docker's is %d", got.code, want.code)
			}
			if want.stdout != got.stdout && !strings.Contains(c.different, "out") {
				t.Errorf("stdout:\n%s\nDocker's:\n%s", got.stdout, want.stdout)
			}
			if want.stderr != got.stderr && !strings.Contains(c.different, "err") {
				t.Errorf("stderr:\n%s\nDocker's:\n%s", got.stderr, want.stderr)
			}
			w, g := strings.Join(want.reqs, "\n"), strings.Join(got.reqs, "\n")
			if w != g && !strings.Contains(c.different, "req") {
				t.Errorf("requests:\n%s\nDocker's:\n%s", g, w)
			}
		})
	}
}

// TestRunInOneRequest: what an engine of ours does in one request looks as the ordinary requests do.
func TestRunInOneRequest(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, c := range commandLines() {
		if !slices.Contains(c.args, "run") {
			continue
		}
		want := runCLI(t, self, c)
		e := clitest.New(t)
		e.Extended = true
		got := runOn(t, e, self, c)
		if want.code != got.code || want.stdout != got.stdout || want.stderr != got.stderr {
			t.Errorf("%s:\n%d %s%s\nordinary:\n%d %s%s", strings.Join(c.args, " "), got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
		}
		if len(want.reqs) > 1 && len(got.reqs) == 0 {
			direct++
		}
	}
	if direct < 10 {
		t.Errorf("%d command lines were run by one request", direct)
	}
}
