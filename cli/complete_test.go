package cli_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

// Completion: what the shell's script gets for a word of each kind. The number is cobra's
// directive: 4 says that files are no candidates.
func TestCompletion(t *testing.T) {
	const (
		containers = "web\nother/db\nold_cat\n"
		images     = "nginx:1.27\nnginx:latest\nlocalhost:5000/a/b:x\n"
		networks   = "host\nbridge\n"
		volumes    = "vol2\nvol1\n"
	)
	for _, c := range []struct{ args, want string }{
		{"stop ''", containers + ":4\n"},
		{"stop web ''", containers + ":4\n"},
		{"rm ''", "old_cat\n:4\n"},
		{"rm -f ''", containers + ":4\n"},
		{"container rm ''", "old_cat\n:4\n"},
		{"start ''", "old_cat\n:4\n"},
		{"unpause ''", ":4\n"},
		{"logs ''", containers + ":4\n"},
		{"logs web ''", ":4\n"},
		{"exec ''", containers + ":4\n"},
		{"rename ''", containers + ":4\n"},
		{"rename web ''", ":4\n"},
		{"inspect ''", containers + ":4\n"},
		{"run ''", images + ":4\n"},
		{"run img ''", ":0\n"},
		{"rmi ''", images + ":4\n"},
		{"rmi a ''", images + ":4\n"},
		{"image history ''", images + ":4\n"},
		{"network rm ''", networks + ":4\n"},
		{"network connect ''", networks + ":4\n"},
		{"network connect n ''", containers + ":4\n"},
		{"network connect n c ''", ":4\n"},
		{"volume rm ''", volumes + ":4\n"},
		{"volume inspect v ''", volumes + ":4\n"},
		{"context use ''", "default\tcurrent\n:4\n"},
		{"ps ''", ":4\n"},
		{"pull ''", ":4\n"},
		{"run --network ''", networks + ":4\n"},
		{"run --volumes-from ''", containers + ":4\n"},
		{"run --pull ''", "always\nmissing\nnever\n:4\n"},
		{"run --restart ''", "no\nalways\non-failure\nunless-stopped\n:4\n"},
		{"run --pid ''", "container:\nhost\n:4\n"},
		{"run --attach ''", "stderr\nstdin\nstdout\n:4\n"},
		{"run --cgroupns ''", "host\nprivate\n:4\n"},
		{"create --ipc ''", "container:\nhost\nnone\nprivate\nshareable\n:4\n"},
		{"logout ''", ":4\n"},
		{"run --link ''", "web:\nother/db:\nold_cat:\n:2\n"},
		{"run --log-driver ''", "json-file\nnone\n:4\n"},
		{"run --volume-driver ''", "local\n:4\n"},
		{"run --storage-opt ''", "size=\n:2\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			o := clitest.Line{Args: "__complete " + c.args}.Run(t)
			if o.Code != 0 || o.Out != c.want {
				t.Errorf("exit %d, candidates %q, want %q; %s", o.Code, o.Out, c.want, o.Err)
			}
		})
	}
	for args, want := range map[string][]string{
		"run --ulimit ''":      {"nofile=", "nproc=", ":2"},
		"run --cap-add ''":     {"ALL", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", ":4"},
		"run --cap-drop ''":    {"ALL", "CAP_CHOWN", ":4"},
		"run --platform ''":    {"linux/amd64", "linux/arm64", "linux/arm64/v8", ":4"},
		"run --stop-signal ''": {"HUP", "USR1", "TERM", "RTMIN", "RTMIN+15", "RTMAX-14", "RTMAX", ":4"},
		"kill -s ''":           {"KILL", "INT", ":4"},
		"stop --signal ''":     {"KILL", "INT", ":4"},
		"run -e ''":            {"DOCKER_CONFIG", "HOME", ":4"},
	} {
		t.Run(args, func(t *testing.T) {
			got := strings.Split(clitest.Line{Args: "__complete " + args}.Run(t).Out, "\n")
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("%s is missing in %q", w, got)
				}
			}
		})
	}
	t.Run("servers", func(t *testing.T) {
		o := clitest.Line{Args: "__complete logout ''", Config: `{"auths":{"https://reg.example/v2/":{"auth":"dTpw"}}}`}.Run(t)
		if o.Out != "reg.example\n:4\n" {
			t.Errorf("candidates %q", o.Out)
		}
	})
	t.Run("no daemon", func(t *testing.T) {
		o := clitest.Line{Args: "__complete stop ''", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}}.Run(t)
		if o.Out != ":1\n" {
			t.Errorf("candidates %q, want cobra's error", o.Out)
		}
	})
	t.Run("commands", func(t *testing.T) {
		o := clitest.Line{Args: "__complete ''"}.Run(t)
		for _, name := range []string{"run", "ps", "container", "network", "volume", "system", "context"} {
			if !strings.Contains("\n"+o.Out, "\n"+name+"\t") {
				t.Errorf("%s is no candidate:\n%s", name, o.Out)
			}
		}
	})
	t.Run("scripts", func(t *testing.T) {
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			if o := (clitest.Line{Args: "completion " + shell}).Run(t); o.Code != 0 || !strings.Contains(o.Out, "docker") {
				t.Errorf("%s: exit %d, %d bytes, %s", shell, o.Code, len(o.Out), o.Err)
			}
		}
	})
}
