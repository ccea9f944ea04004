package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPodman: Debian's podman with conmon and our runtime, every verb that reaches
// the runtime.
func TestPodman(t *testing.T) {
	podman := need(t, "podman")
	need(t, "conmon")
	d := short(t)
	cmd := func(args ...string) *exec.Cmd {
		return exec.Command(podman, append([]string{
			"--root", d + "/root", "--runroot", d + "/run", "--tmpdir", d + "/tmp",
			"--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "overlay", "--runtime", ours(),
		}, args...)...)
	}
	t.Cleanup(func() {
		_ = run(t, cmd("rm", "--all", "--force", "--time", "0"))
		_ = unix.Unmount(d+"/root/overlay", unix.MNT_DETACH)
	})
	const flags = "--network none --log-driver k8s-file "
	play(t, cmd, []step{
		{args: "import -q " + image(t) + " bb"},
		{args: "run --rm " + flags + "bb sh -c 'echo hi; exit 5'", code: 5, want: "hi"},
		{args: "run -i --rm " + flags + "bb cat", in: "typed", want: "typed"},
		{args: "run -t --rm " + flags + "bb tty", want: "/dev/pts/0"},
		{args: "run -d --name c1 " + flags + "bb sh -c 'echo logged; exec sleep 1000'"},
		{args: "ps", want: "Up"},
		{args: "logs c1", want: "logged", poll: true},
		{args: "exec c1 sh -c 'echo inside; exit 4'", code: 4, want: "inside"},
		{args: "exec -t c1 tty", want: "/dev/pts/"},
		{args: "exec -u 1000:1000 -w /tmp -e A=b c1 sh -c 'id -u; pwd; echo $A'", want: "1000\n/tmp\nb\n"},
		{args: "top c1", want: "sleep 1000", poll: true},
		{args: "stats --no-stream c1", want: "c1"},
		{args: "pause c1"},
		{args: "ps -a", want: "Paused"},
		{args: "unpause c1"},
		{args: "update -m 100m c1"},
		{args: "stop -t 0 c1"},
		{args: "inspect -f {{.State.Status}}/{{.State.ExitCode}} c1", want: "exited/137"},
		{args: "start c1"},
		{args: "kill -s KILL c1"},
		{args: "wait c1", want: "137"},
		{args: "rm -f c1"},
		{args: "run --rm " + flags + "bb nosuch", code: 127, want: "executable file not found in $PATH"},
		{args: "run --rm " + flags + "bb /bin", code: 126, want: "is a directory"},
		{args: "run --rm -m 64m --pids-limit 50 -u 1000:1000 " + flags + "bb id", want: "uid=1000 gid=1000"},
		{
			args: "run --rm --read-only --cap-drop all --security-opt no-new-privileges " + flags + "bb grep -E CapBnd|NoNewPrivs|Seccomp: /proc/self/status",
			want: "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		},
		{args: "run --rm -v /etc:/mnt:ro " + flags + "bb sh -c 'test -e /mnt/passwd && ! touch /mnt/x'"},
		{args: "run --rm --tmpfs /t:size=64k --sysctl kernel.msgmax=4321 --ulimit nofile=99:99 " + flags + "bb sh -c 'cat /proc/sys/kernel/msgmax; ulimit -n'", want: "4321\n99\n"},
		{args: "run --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 " + flags + "bb cat /proc/self/uid_map", want: "100000"},
		{args: "run --rm --pid host --ipc host --uts host " + flags + "bb true"},
		{args: "ps -a --format {{.ID}}"},
	})
}

// TestShim: dockerd and containerd of Debian's docker.io, whose shim calls our
// runtime by its name.
func TestShim(t *testing.T) {
	dockerd, containerd := need(t, "dockerd"), need(t, "containerd")
	need(t, "containerd-shim-runc-v2")
	docker := need(t, "docker")
	d := short(t)
	cfg := `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
root = "` + d + `/c/root"
state = "` + d + `/c/state"
[grpc]
  address = "` + d + `/c.sock"
`
	must(t, os.WriteFile(d+"/c.toml", []byte(cfg), 0o600))
	daemon(t, filepath.Join(d, "c.log"), containerd, "-c", d+"/c.toml", "-l", "error")
	await(t, "containerd", func() bool { _, err := os.Stat(d + "/c.sock"); return err == nil })
	daemon(t, filepath.Join(d, "d.log"), dockerd, "--containerd", d+"/c.sock", "--data-root", d+"/data", "--exec-root", d+"/exec", "-p", d+"/pid",
		"-H", "unix://"+d+"/d.sock", "--add-runtime", "gantry="+ours(), "--iptables=false", "--ip6tables=false", "--bridge=none",
		"--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs", "-l", "error")
	cmd := func(args ...string) *exec.Cmd {
		c := exec.Command(docker, args...)
		c.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d+"/d.sock", "DOCKER_CONFIG="+d)
		return c
	}
	await(t, "dockerd", func() bool { return cmd("version").Run() == nil })
	const flags = "--network none --runtime gantry "
	play(t, cmd, []step{
		{args: "import " + image(t) + " bb"},
		{args: "run --rm " + flags + "bb sh -c 'echo hi; exit 5'", code: 5, want: "hi"},
		{args: "run -i --rm " + flags + "bb cat", in: "typed", want: "typed"},
		{args: "run -t --rm " + flags + "bb tty", want: "/dev/pts/0"},
		{args: "run -d --name c1 " + flags + "bb sh -c 'echo logged; exec sleep 1000'"},
		{args: "inspect -f {{.HostConfig.Runtime}} c1", want: "gantry"},
		{args: "ps", want: "Up"},
		{args: "logs c1", want: "logged", poll: true},
		{args: "exec c1 sh -c 'echo inside; exit 4'", code: 4, want: "inside"},
		{args: "exec -t c1 tty", want: "/dev/pts/"},
		{args: "exec -u 1000:1000 -w /tmp -e A=b c1 sh -c 'id -u; pwd; echo $A'", want: "1000\n/tmp\nb\n"},
		{args: "exec c1 nosuch", code: 126, want: "executable file not found in $PATH"},
		{args: "top c1", want: "sleep 1000", poll: true},
		{args: "stats --no-stream c1", want: "c1"},
		{args: "pause c1"},
		{args: "ps", want: "Paused"},
		{args: "unpause c1"},
		{args: "update -m 64m --memory-swap 64m --pids-limit 77 --cpu-shares 333 c1"},
		{args: "restart -t 0 c1"},
		{args: "stop -t 0 c1"},
		{args: "inspect -f {{.State.Status}}/{{.State.ExitCode}} c1", want: "exited/137"},
		{args: "start c1"},
		{args: "kill c1"},
		{args: "rm -f c1"},
		{args: "run --rm " + flags + "bb nosuch", code: 127, want: "executable file not found in $PATH"},
		{args: "run --rm " + flags + "bb /bin", code: 126, want: "is a directory"},
		{args: "run --rm -m 64m --pids-limit 50 -u 1000:1000 --cap-add NET_ADMIN " + flags + "bb id", want: "uid=1000 gid=1000"},
		{args: "run --name oom -m 16m " + flags + "bb sh -c 'x=a; while :; do x=$x$x; done'", code: 137},
		{args: "inspect -f {{.State.OOMKilled}} oom", want: "true", poll: true},
		{args: "rm oom"},
		{args: "run --rm --privileged " + flags + "bb sh -c 'mount -t tmpfs t /tmp && grep CapBnd /proc/self/status'", want: "CapBnd"},
		{args: "run --rm --pid host --ipc host --uts host " + flags + "bb true"},
		{args: "ps -aq"},
	})
}

// short is a directory with a short path: podman and addresses of sockets want that.
func short(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "e")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

// daemon starts a program and stops it when the test ends.
func daemon(t *testing.T, log, name string, args ...string) {
	t.Helper()
	c := exec.Command(name, args...)
	f, err := os.Create(log)
	must(t, err)
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = c.Process.Kill() })
		_ = c.Wait()
		kill.Stop()
		if t.Failed() {
			b, _ := os.ReadFile(log)
			lines := strings.Split(string(b), "\n")
			t.Logf("%s: %s", name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
}
