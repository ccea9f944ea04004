package runtime

import (
	"flag"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	validation = flag.Bool("validation", false, "run the 58 validation programs of the OCI's runtime-tools (two minutes; needs their modules)")
	subject    = flag.String("runtime", "", "the runtime that the validation programs test; default: ours")
)

const runtimeTools = "github.com/opencontainers/runtime-tools"

// failing are the programs that cannot pass here; docs/RUNTIME.md has the reasons
// at length. Neither runc nor crun passes any of them on the same machine.
var failing = map[string]string{
	"delete":                         "deletes a created container and wants an error: all runtimes kill and delete it",
	"hooks":                          "compares with a text that its own hooks cannot write",
	"hooks_stdin":                    "wants an empty version in the state, and created during create",
	"linux_cgroups_blkio":            "the kernel has no blkio.leaf_weight any more",
	"linux_cgroups_relative_blkio":   "the kernel has no blkio.leaf_weight any more",
	"linux_cgroups_hugetlb":          "no hugetlb controller on the machine",
	"linux_cgroups_relative_hugetlb": "no hugetlb controller on the machine",
	"linux_cgroups_memory":           "the kernel has no memory.kmem.limit_in_bytes that can be set any more",
	"linux_cgroups_relative_memory":  "the kernel has no memory.kmem.limit_in_bytes that can be set any more",
	"linux_cgroups_network":          "no net_cls controller on the machine",
	"linux_cgroups_relative_network": "no net_cls controller on the machine",
	"linux_process_apparmor_profile": "no AppArmor on the machine",
	"linux_rootfs_propagation":       "wants CAP_SYS_RESOURCE, which root does not have on the machine",
	"misc_props":                     "its bundle lacks the program it runs",
	"pidfile":                        "kills the program true, which has ended",
	"prestart":                       "wants prestart hooks to run at start, as the specification had it before 1.1",
	"process_capabilities":           "wants CAP_SYS_RESOURCE, which root does not have on the machine",
	"process_capabilities_fail":      "wants an error for unknown capabilities; since 1.1 they are ignored",
	"process_rlimits":                "Go itself raises the limit of files in the program that looks at it",
	"start":                          "creates a container without a process and wants the error at start only",
}

// lacking are programs that runc and crun pass and ours does not.
var lacking = map[string]string{}

var (
	notOK = regexp.MustCompile(`(?m)^ *not ok`)
	isOK  = regexp.MustCompile(`(?m)^ *ok`)
	// woe is a failure in programs that forget to report a point for it.
	woe = regexp.MustCompile(`"error": "[^"]`)
)

// TestValidation builds the programs at the pinned versions and runs each. One
// passes if it ends well, reports no failed point, and, where it reports no point
// at all, no error.
func TestValidation(t *testing.T) {
	if !*validation {
		t.Skip("asked for with -validation: it takes minutes")
	}
	module, err := filepath.Abs("testdata/runtimetools")
	must(t, err)
	dir := t.TempDir()
	tool := func(args ...string) string {
		c := exec.Command("go", args...)
		c.Dir = module
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOOS=linux")
		r := run(t, c)
		if r.code != 0 {
			t.Fatalf("go %v: %s", args, r.err)
		}
		return r.out
	}
	where := strings.TrimSpace(tool("list", "-m", "-f", "{{.Dir}}", runtimeTools))
	if where == "" {
		t.Skip("the module " + runtimeTools + " cannot be had")
	}
	var programs []string
	for p := range strings.FieldsSeq(tool("list", runtimeTools+"/validation/...")) {
		if path.Base(p) != "util" {
			programs = append(programs, p)
		}
	}
	tool(append([]string{"build", "-o", dir + "/", runtimeTools + "/cmd/runtimetest"}, programs...)...)
	rootfs, err := os.ReadFile(filepath.Join(where, "rootfs-amd64.tar.gz"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "rootfs-amd64.tar.gz"), rootfs, 0o644))
	runtime := *subject
	if runtime == "" {
		runtime = ours()
	}
	passed := 0
	for _, p := range programs {
		name := path.Base(p)
		c := exec.Command(filepath.Join(dir, name))
		c.Dir = dir
		c.Env = append(os.Environ(), "RUNTIME="+runtime)
		r := run(t, c)
		ok := r.code == 0 && !notOK.MatchString(r.out) && (isOK.MatchString(r.out) || !woe.MatchString(r.out))
		if ok {
			passed++
		}
		switch {
		case *subject != "":
			t.Logf("%s: %v", name, ok)
		case ok && failing[name]+lacking[name] != "":
			t.Logf("%s passes: take it off the list", name)
		case !ok && failing[name]+lacking[name] == "":
			t.Errorf("%s fails:\n%s%s", name, r.out[max(0, len(r.out)-3000):], r.err)
		}
	}
	t.Logf("%d of %d programs pass", passed, len(programs))
}
