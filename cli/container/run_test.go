package container_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

// Each flag of run and create alone, and what of it reaches the engine.
func TestCreateFlags(t *testing.T) {
	lines := clitest.Lines(`
img
img sh -c 'echo $A'
--add-host a:1.2.3.4 --add-host b=::1 --add-host c:[::2] --add-host d:host-gateway img
--annotation k=v img
-a stdout -a stderr img
-a stdin img
--blkio-weight 100 --blkio-weight-device /dev/a:200 img
--cap-add NET_ADMIN --cap-drop all img
--cgroup-parent /x --cgroupns host img
--cpu-period 1000 --cpu-quota 2000 -c 3 --cpuset-cpus 0,1 --cpuset-mems 0 img
--cpu-rt-period 1 --cpu-rt-runtime 2 img
--cpus 1.5 img
--device /dev/null --device /dev/zero:/dev/z:r img
--device vendor.com/class=name img
--device-cgroup-rule 'c 1:3 rwm' img
--device-read-bps /dev/a:1mb --device-write-bps /dev/a:1k --device-read-iops /dev/a:5 --device-write-iops /dev/a:6 img
--dns 1.1.1.1 --dns fd00::1 --dns-option ndots:1 --dns-opt x --dns-search a.example img
--domainname d -h host img
--entrypoint sh img -c ls
--entrypoint= img
-e A=1 -e NOT_THERE -e HOME img
--expose 80 --expose 90-91/udp img
--gpus all img
--gpus '"device=0,1",capabilities=utility' img
--group-add audio --group-add 5 img
--health-cmd 'curl x' --health-interval 1s --health-retries 2 --health-start-interval 3s --health-start-period 4s --health-timeout 5s img
--no-healthcheck img
--init img
--init=false img
-i img
-it img
-t img
--ip 10.0.0.2 --ip6 fd::2 --network n --link-local-ip 169.254.0.1 img
--ipc host img
--ipc container:x img
--isolation default img
--kernel-memory 1m img
-l a=b -l c img
--link a:b --link c img
--link a:b --network n img
--log-driver json-file --log-opt max-size=1m img
--mac-address 92:d0:c6:0a:29:33 img
-m 64m --memory-reservation 32m --memory-swap -1 --memory-swappiness 10 img
--memory-swap 128m -m 64m img
--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave img
--mount type=volume,src=v,dst=/v,volume-nocopy,volume-opt=o=1,volume-driver=local,volume-label=l=1,volume-subpath=p img
--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777 img
--mount dst=/anon img
--name n img
--network host img
--network none img
--network container:c img
--network n --network-alias x --net-alias y img
--network name=n,alias=x,ip=10.0.0.5,gw-priority=5 --network m img
--oom-kill-disable -m 64m img
--oom-score-adj -5 img
--pid host img
--pid container:c img
--pids-limit 5 img
--pids-limit -1 img
--platform linux/arm64/v8 img
--platform linux/arm64/8 img
--platform linux/arm/v7 img
--platform linux/arm img
--platform linux/armhf img
--platform linux/x86_64 img
--platform arm64 img
--platform linux img
--platform windows/amd64 img
--privileged img
-p 80 -p 8080:81 -p 127.0.0.1:82:82/udp -p [::1]::83 -p 9000-9001:9000-9001/sctp img
-P img
--read-only img
--restart on-failure:3 img
--restart unless-stopped img
--rm img
--runtime r img
--security-opt no-new-privileges --security-opt apparmor=p img
--security-opt seccomp=seccomp.json img
--security-opt systempaths=unconfined img
--shm-size 1g img
--stop-signal INT --stop-timeout 3 img
--storage-opt size=1G img
--sysctl net.a=1 img
--tmpfs /a --tmpfs /b:size=1m,mode=700 img
--ulimit nofile=1:2 --ulimit core=-1 img
-u 1:2 img
--userns host --uts host img
-v /a:/b:ro -v vol:/c -v /anon img
--volume-driver d --volumes-from c:ro img
-w /w img
--env-file envs --label-file labels img
`)
	for i := range lines {
		lines[i].Args = "create " + lines[i].Args
		lines[i].Files = map[string]string{"envs": "A=1\nB\nHOME\n", "labels": "l1=v\nl2\n", "seccomp.json": `{ "defaultAction": "SCMP_ACT_ALLOW" }`}
		lines[i].Only = "POST /containers/create"
	}
	proxies := `{"proxies":{"default":{"httpProxy":"http://p","httpsProxy":"http://s","noProxy":"n","ftpProxy":"f","allProxy":"a"}}}`
	lines = append(lines,
		clitest.Line{Args: "create img", Name: "proxies", Config: proxies},
		clitest.Line{Args: "create -e http_proxy=mine img", Name: "proxies", Config: proxies},
		clitest.Line{Args: "create img", Name: "DOCKER_DEFAULT_PLATFORM", Env: []string{"DOCKER_DEFAULT_PLATFORM=linux/arm64"}},
	)
	clitest.Golden(t, "create.golden", lines)
}

// Texts and exit codes of what goes wrong before, at, and after the start.
func TestRunOutcomes(t *testing.T) {
	lines := clitest.Lines(`
run
run hello
run hello sh -c 'x y'
run -d hello
run -q missing
run missing
run --pull always hello
run --pull never missing
run --pull bogus hello
run gone
run exit3
run --rm exit77
run -d exit3
run noexec
run nofile
run noperm
run isdir
run nostart
run -d nostart
run --rm nostart
run --name x conflict
run warn
run -it hello
run -t hello
run Upper
run a:b:c
run -a stdout -d hello
run -a bogus hello
run --cidfile there hello
run --cidfile nodir/x hello
run --rm --restart always hello
run --nosuch hello
run -m x hello
run -p x hello
run -p 80:80/bad hello
run -p 1-2:3-5 hello
run -p 80: hello
run -v vol::b hello
run -v a:b:c:d hello
run --mount type=bind,src=/a hello
run --mount type=bogus,dst=/a hello
run --mount type=tmpfs,dst=/t,tmpfs-mode=9 hello
run --network a --network a hello
run --network a --network host hello
run --network-alias x hello
run --pid x hello
run --ipc x hello
run --uts x hello
run --userns x hello
run --cgroupns x hello
run --restart bogus hello
run --restart :3 hello
run --restart always:3 hello
run --ulimit x hello
run --ulimit nofile=2:1 hello
run --sysctl a=1 hello
run --security-opt bad hello
run --security-opt seccomp=none.json hello
run --storage-opt bad hello
run --gpus x hello
run --device a:b:c:d hello
run --device /a:/b:x hello
run --device-read-bps x hello
run --blkio-weight-device /dev/a:5 hello
run --cpus x hello
run --cpus 0.0000000001 hello
run --memory-swappiness 101 hello
run --health-interval -5s hello
run --no-healthcheck --health-cmd x hello
run --health-retries -1 --health-cmd x hello
run --log-driver none --log-opt a=b hello
run --mac-address bad hello
run --dns bad hello
run --dns-search 999 hello
run --add-host bad hello
run --expose x hello
run --link a:b:c hello
run -e = hello
run --env-file none hello
run --label-file none hello
run -l =x hello
run --platform bogus/ hello
run --platform a/b/c/d hello
run --platform b@d/amd64 hello
run --platform linux/b@d hello
run --platform nosuch hello
create gone
create --rm --restart always hello
create --pull bogus hello
create --name x conflict
create warn
create
`)
	for i := range lines {
		lines[i].Files = map[string]string{"there": "x"}
		lines[i].Only = "-" // the way there may change; what is said may not
	}
	lines = append(lines,
		clitest.Line{Args: "run -i cat", Stdin: "in and out\nagain", Only: "-"},
		clitest.Line{Args: "run -i --rm cat", Stdin: strings.Repeat("0123456789abcdef", 4096), Only: "-"},
		clitest.Line{Args: "run cat", Name: "no -i", Stdin: "is not read", Only: "-"},
		clitest.Line{Args: "run hello", Name: "no daemon", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}},
		clitest.Line{Args: "run -d hello", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("POST /containers/create", 400, "no such thing") }, Only: "-"},
	)
	clitest.Golden(t, "run.golden", lines)
}

// The file of --cidfile has the ID while there is a container, and is not there when none was
// made.
func TestCIDFile(t *testing.T) {
	for _, c := range []struct {
		name, args string
		code       int
		want       string // in the file; "ID" is what create printed
	}{
		{"made", "create --cidfile new hello", 0, "ID"},
		{"detached", "run -d --cidfile new hello", 0, "ID"},
		{"not started", "run -d --cidfile new nostart", 125, "ID"},
		{"not made", "create --cidfile new gone", 1, "none"},
		{"there already", "create --cidfile old hello", 1, "older"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			o := clitest.Line{Args: c.args, Files: map[string]string{"old": "older"}, After: func(dir string) {
				b, err := os.ReadFile(filepath.Join(dir, clitest.Words(c.args[strings.Index(c.args, "--cidfile"):])[1]))
				if got = string(b); errors.Is(err, os.ErrNotExist) {
					got = "none"
				}
			}}.Run(t)
			if o.Code != c.code {
				t.Errorf("exit %d, want %d: %s", o.Code, c.code, o.Err)
			}
			want := c.want
			if want == "ID" {
				want = strings.TrimSpace(o.Out)
			}
			if got != want || c.want == "ID" && len(got) != 64 {
				t.Errorf("the file has %q, want %q", got, want)
			}
		})
	}
}
