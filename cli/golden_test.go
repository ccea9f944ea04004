package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli"
	"github.com/gantry/gantry/cli/clitest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update and look at the change):\n%s", name, got)
	}
}

// run runs the command line in this process.
func run(args ...string) (stdout, stderr string, code int) {
	var out, errb bytes.Buffer
	code = cli.Main(args, io.NopCloser(strings.NewReader("")), &out, &errb)
	return out.String(), errb.String(), code
}

func isolate(t *testing.T, socket string) {
	t.Helper()
	t.Setenv("HOME", "/root")
	t.Setenv("DOCKER_CONFIG", "/root/.docker-none")
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	for _, k := range []string{"DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "DOCKER_DEFAULT_PLATFORM"} {
		t.Setenv(k, "")
	}
	t.Setenv("TZ", "UTC")
}

func TestGoldenHelp(t *testing.T) {
	isolate(t, "/nonexistent")
	var all strings.Builder
	for _, c := range strings.Split("|run|create|exec|ps|images|pull|push|login|logout|version|info|attach|events|history|inspect|kill|load|logs|pause|port|rename|restart|rm|rmi|save|start|stop|tag|top|unpause|wait|container|container ls|container inspect|container prune|context|context ls|context use|context show|context inspect|image|image ls|image inspect|image prune|image rm|network|network create|network connect|network disconnect|network inspect|network ls|network prune|network rm|system|system df", "|") {
		out, errs, code := run(append(strings.Fields(c), "--help")...)
		if code != 0 || errs != "" {
			t.Errorf("docker %s --help: %d %s", c, code, errs)
		}
		fmt.Fprintf(&all, "##### docker %s --help\n%s\n", c, out)
	}
	golden(t, "help.golden", all.String())
}

func TestGoldenOutput(t *testing.T) {
	e := clitest.New(t)
	isolate(t, e.Socket)
	var all strings.Builder
	for _, c := range []string{
		"ps --format table\t{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
		"ps -q", "images --format table\t{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}",
		"network ls", "network ls --format json", "history --format {{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}} nginx",
		"events", "port c1", "top c1", "inspect c1", "inspect -f {{.Name}}\t{{json\t.Config.Env}} c1", "info",
		"run nosuch\tx", "run -m x hello", "run noexec", "run noperm", "rm none1", "nosuch", "container nosuch", "rm",
	} {
		args := strings.Fields(c)
		if strings.Contains(c, "\t") {
			args = strings.Split(c, " ")
			for i := range args {
				args[i] = strings.Replace(args[i], "table\t", "table ", 1)
				if strings.Contains(args[i], "{{json") || strings.Contains(args[i], "nosuch") {
					args[i] = strings.ReplaceAll(args[i], "\t", " ")
				}
			}
		}
		out, errs, code := run(args...)
		fmt.Fprintf(&all, "##### docker %s → %d\n%s--- stderr\n%s\n", strings.ReplaceAll(c, "\t", `\t`), code, out, errs)
	}
	golden(t, "output.golden", all.String())
}

func TestExitCodes(t *testing.T) {
	e := clitest.New(t)
	isolate(t, e.Socket)
	for args, want := range map[string]int{
		"run hello": 0, "run exit3": 3, "run --rm exit77": 77, "run noexec": 127, "run nofile": 127,
		"run noperm": 126, "run isdir": 126, "run nostart": 125, "run gone": 125, "run conflict": 125,
		"run --nosuch": 125, "ps --nosuch": 125, "rm none1": 1, "rm": 1, "exec c1 ls": 5, "wait none1": 1,
		"start none1": 1, "attach c1": 7, "start -a c1": 7, "create gone": 1, "logs none1": 1,
	} {
		t.Run(args, func(t *testing.T) {
			if _, errs, code := run(strings.Fields(args)...); code != want {
				t.Errorf("docker %s ends with %d, want %d: %s", args, code, want, errs)
			}
		})
	}
}

// TestCredentialsStayHome: what is stored for one registry is sent for its images only.
func TestCredentialsStayHome(t *testing.T) {
	e := clitest.New(t)
	isolate(t, e.Socket)
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"reg.example":{"auth":"dTpw"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for ref, has := range map[string]bool{
		"reg.example/a": true, "reg.example:5000/a": false, "evil.example/reg.example/a": false, "reg.example.evil/a": false, "a": false,
	} {
		t.Run(ref, func(t *testing.T) {
			before := len(e.Requests())
			run("pull", ref)
			reqs := e.Requests()[before:]
			if len(reqs) != 1 || (reqs[0].Auth != "e30=") != has {
				t.Errorf("%s: %+v", ref, reqs)
			}
		})
	}
}

func BenchmarkStartup(b *testing.B) {
	bin := filepath.Join(b.TempDir(), "docker")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "../cmd/docker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	e := clitest.New(b)
	for _, args := range []string{"--version", "run --help", "ps", "run -d hello"} {
		b.Run(strings.ReplaceAll(args, " ", "_"), func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(bin, strings.Fields(args)...)
				cmd.Env = []string{"HOME=/nonexistent", "DOCKER_HOST=unix://" + e.Socket}
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
