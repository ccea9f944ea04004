// Package e2e runs the real binaries, end to end. Every test is a script
// (testscript, *.txtar here) with a daemon of its own: its own data-root, exec-root,
// socket and cgroup parent, inside a network namespace that has a loopback and
// nothing else. What a script may say beyond testscript's own commands is in
// commands_test.go; README.md lists it.
//
// A script whose header says "# clients: both" runs twice: with our docker and with
// Docker's own client against our socket. What the scripts need beside it comes from
// `make deps`.
package e2e

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(realMain{m}, map[string]func(){
		"mkimage":     mkimageMain,
		"slowproxy":   slowproxyMain,
		"dnsserver":   dnsserverMain,
		"gen":         genMain,
		"netplugin":   netpluginMain,
		"volplugin":   volpluginMain,
		"pluginplace": pluginplaceMain,
		"storm":       stormMain,
		"sum":         sumMain,
		"apiget":      apigetMain,
		"activate":    activateMain,
		"notified":    notifiedMain,
	})
}

// realMain builds what the scripts run before any of them starts.
type realMain struct{ m *testing.M }

func (r realMain) Run() int {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Println("e2e: skipped: needs root")
		return 0
	}
	if err := useCache(); err != nil {
		fmt.Println("e2e:", err)
		return 1
	}
	dir := os.Getenv("GANTRY_BIN")
	if dir == "" {
		tmp, err := os.MkdirTemp("", "gantry-e2e-bin-")
		if err != nil {
			fmt.Println("e2e:", err)
			return 1
		}
		defer os.RemoveAll(tmp)
		cmd := exec.Command("go", "build", "-trimpath", "-o", tmp+"/", "../../cmd/docker", "../../cmd/dockerd", "../../cmd/gantry-runtime")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Printf("e2e: %v\n%s", err, out)
			return 1
		}
		dir = tmp
	}
	os.Setenv("GANTRY_BIN", dir)
	code := r.m.Run()
	for d := range cgroupDirs(runCgroup()) {
		os.Remove(d)
	}
	return code
}

// useCache puts what `make deps` has made in PATH, before what the machine has.
func useCache() error {
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		return err
	}
	os.Setenv("PATH", filepath.Join(cache, "tools", "bin")+":"+os.Getenv("PATH"))
	if os.Getenv("GANTRY_TEST_CACHE") == "" {
		os.Setenv("GANTRY_TEST_CACHE", filepath.Join(cache, "images"))
	}
	for _, name := range []string{"busybox", "curl", "dig", "docker", "docker-registry", "ip", "kill", "nft", "pgrep"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: `make deps` fetches or makes it", name)
		}
	}
	return nil
}

// runCgroup is the parent of all cgroups of this run. Other runs have their own: what is
// empty there may be about to be used.
func runCgroup() string { return "/gantry-e2e-" + strconv.Itoa(os.Getpid()) }

func TestOwn(t *testing.T) { runScripts(t, filepath.Join(os.Getenv("GANTRY_BIN"), "docker"), false) }

// TestReal runs the scripts with Docker's own client, built by `make deps` at a pinned
// version; GANTRY_REAL_DOCKER names another one.
func TestReal(t *testing.T) {
	p := os.Getenv("GANTRY_REAL_DOCKER")
	if p == "" {
		p = "../../.cache/tools/bin/docker"
	}
	p, err := filepath.Abs(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(p, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "Docker version") {
		t.Fatalf("%s is not Docker's own client (%v): `make deps` builds it", p, err)
	}
	runScripts(t, p, true)
}

func runScripts(t *testing.T, client string, theirs bool) {
	all, err := filepath.Glob("*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range all {
		h := header(t, f)
		if (h["long"] != "" && testing.Short()) || (theirs && h["clients"] != "both") {
			continue
		}
		files = append(files, f)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error { return setup(env, client, theirs) },
		Cmds:  commands(),
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "own":
				return !theirs, nil
			case "cgroup2":
				_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		RequireUniqueNames: true,
		ContinueOnError:    os.Getenv("GANTRY_E2E_CONTINUE") != "",
	})
}

// header reads the "# key: value" lines at the top of a script.
func header(t *testing.T, name string) map[string]string {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan() && strings.HasPrefix(s.Text(), "#"); {
		if k, v, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(s.Text(), "#")), ": "); ok {
			h[k] = v
		}
	}
	return h
}
