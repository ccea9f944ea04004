package cli_test

// knownDifferences are the command lines whose outcome differs on purpose, and in what.
func knownDifferences() map[string]string {
	return map[string]string{
		// Docker 28.2.2 crashes on these.
		"run -a stdout hello": "code err", "run -a stderr hello": "code err",
		// A slip of 28.2.2: "SRun 'docker …".
		"images a b": "err",
		// Names of Go types; we ask the daemon before we know.
		"ps --format {{.Nope}}": "err req",
		// Addresses are checked by the client; Docker leaves it to the daemon.
		"network create --subnet bad net":   "code out err req",
		"run -d --ip bad --network n hello": "code out err req",
		// Docker looks a network up before it removes it, and prints "exit status 1".
		"network rm n1 n2": "req", "network rm none1": "err req", "network rm -f none1": "req",
		// Docker also asks for plugins and the swarm state, and twice for a container.
		"attach c1": "req", "attach none1": "req",
		// The version is our own.
		"version": "out",
		// The API ignores Detach at creation.
		"exec -d c1 ls -l": "req",
		// Docker changes the value of a driver option to lower case.
		"run -d --network name=n1,alias=x,ip=10.0.0.5,driver-opt=K=V,gw-priority=5,mac-address=92:d0:c6:0a:29:33 hello": "req",
		// Docker 29 says these in other words than 28.2.2 did, whose words ours are.
		"inspect none1": "err req", "inspect c1 none1": "err req",
		"run -d --security-opt bogus hello":                       "err",
		"run -d --mount type=bind,src=/a,dst=/b,readonly=x hello": "err",
		"run -d --mount type=bind,src=/a,dst=/b,bogus=1 hello":    "err",
		"run -d --expose 1:2 hello":                               "err",
		"run -d --expose x hello":                                 "err",
		"run -d --env-file nosuch hello":                          "err",
		"run -d --env-file env hello":                             "err",
		"run --platform bogus/ hello":                             "err",
		"run -it hello":                                           "err",
		"exec -it c1 ls":                                          "err",
		"-H unix:///nosuch/sock ps":                               "err",
		"login -u u":                                              "err",
		"start none1":                                             "err",
		"start c1 none1":                                          "err",
		"port c1 81":                                              "err",
		"rename none1 b":                                          "err",
		"-H a -H b ps":                                            "code err",
		// Docker 29 has another table of images, without those that have no name.
		"images": "out req", "image ls": "out req", "images nginx": "out req", "images -a --filter dangling=true": "out req",
		"images -q": "out", "images --no-trunc": "out", "images --digests": "out", "images --format json": "out",
		"images --format {{.Size}}/{{.CreatedAt}}": "out", "images --format {{.Repository}}@{{.Digest}}": "out",
		// Docker 29 shows HealthStatus, leaves out what events told before API 1.22, has a
		// notice for a flag without effect, and removes by force what is not there.
		"ps --format json": "out", "events --format json": "out", "run -d --kernel-memory 10m hello": "out", "rm -f none1": "err",
		// Docker 29 leaves the check of a mount's target to the daemon.
		"run -d --mount type=bind,src=/a hello": "code out err req",
		// Flags of Windows are not refused.
		"run --io-maxbandwidth 1m --io-maxiops 3 --cpu-count 1 --cpu-percent 2 -d hello": "code out err req",
	}
}

// commandLines are what TestSameAsDocker runs with both clients.
func commandLines() []cmdline {
	out := words(`
ps
ps -a
ps -q
ps -aq --no-trunc
ps --no-trunc
ps -s
ps -n 3
ps -l
ps --filter status=running --filter name=web
ps --filter bad
ps --format json
ps --format {{.ID}}:{{.Names}}:{{.Image}}:{{.Ports}}
ps --format table\t{{.Names}}\t{{.Status}}
ps --format {{json\t.Names}}
ps --format {{.Nope}}
ps --format {{
ps extra
images
images -q
images --digests
images --no-trunc
images nginx
images -a --filter dangling=true
images --format json
images --format {{.Repository}}@{{.Digest}}
images --format {{.Size}}/{{.CreatedAt}}
images a b
history nginx
history --no-trunc nginx
history -q nginx
history -H=false nginx
history --format json nginx
history none1
network ls
network ls -q
network ls --no-trunc
network ls --format json
network ls --filter driver=bridge
network create net
network create -d bridge --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 --aux-address a=10.1.0.9 --label x=y -o k=v --internal net
network create --ipv6 --ipv4=false net
network create --subnet bad net
network create --gateway 10.1.0.1 net
network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 net
network rm n1 n2
network rm none1
network rm -f none1
network inspect bridge
network inspect none1
network inspect -f {{.Name}} bridge
network connect n c
network connect --ip 10.0.0.2 --alias a --alias b --link x:y --driver-opt k=v --gw-priority 3 n c
network disconnect -f n c
network prune -f
network prune -f --filter until=24h
network foo
container foo
container ls
container inspect c1
container inspect none1
container prune -f
container prune
image ls
image inspect nginx
image inspect none1
image prune -f
image prune -af --filter label=x
inspect c1
inspect none1
inspect c1 none1
inspect --type image nginx
inspect --type bogus nginx
inspect -f {{.Name}} c1
inspect -f {{.Config.Env}} c1
inspect -f {{json\t.Config.Labels}} c1
inspect -f {{.Unknown.New}} c1
inspect -f {{.Missing}} c1
inspect -f {{index\t.Config.Env\t0}} c1
inspect -f {{ c1
inspect --format json c1
tag a b
rmi a b
rmi none1
rmi -f none1
rmi -f a none1
rmi --no-prune a
save a
save -o x.tar a
save -o nodir/x.tar a
load
load -i archive.tar
load -i nosuch.tar
load -q -i archive.tar
pull missing
pull -q missing
pull missing:tag
pull -a missing:tag
pull gone
pull broken
pull Upper
pull --platform linux/arm64 missing
push a
push -q a
push -a a
stop c1
stop -t 3 c1 c2
stop -s HUP c1
stop none1
stop c1 none1 c2
restart c1
kill c1
kill -s TERM c1
kill none1
pause c1
unpause c1
rm c1
rm -fv c1 c2
rm none1
rm -f none1
rename a b
rename none1 b
top c1
top c1 -o pid
top none1
port c1
port c1 80
port c1 80/tcp
port c1 81
port c1 9/udp
port none1
wait c1 c2
wait none1
logs c1
logs -f --tail 3 --since 10m c1
logs -t --details --until 2025-01-01T00:00:00Z c1
logs none1
start c1
start c1 c2
start none1
start c1 none1
start -a c1
start -a c1 c2
attach c1
attach none1
exec c1 ls
exec -d c1 ls -l
exec -e A=1 -e FROM_ENV -e NOT_SET --env-file goodenv -u u -w /w --privileged c1 ls
exec none1 ls
exec c1
exec -it c1 ls
version
version -f {{.Server.Version}}
version -f {{
info -f {{.ServerVersion}}
events
events --format json
events --format {{.Action}}
events --filter type=container --since 2026-01-02T03:04:05Z
context show
context ls
context ls -q
context inspect
context inspect nosuch
context use nosuch
context use default
login -u u
login --password-stdin
logout
logout reg.example.com:5000
nosuch
nosuch --flag
--nosuch ps
-H
-H unix:///nosuch/sock ps
-H tcp://127.0.0.1:1 ps
-H a -H b ps
-c nosuch ps
--log-level bogus ps
run
run --nosuch x
run -m x busybox
run hello
run --rm hello
run -d hello
run exit3
run --rm exit3
run -i cat
run missing
run -q missing
run --pull never missing
run --pull always hello
run --pull bogus hello
run gone
run noexec nosuch
run nofile nosuch
run noperm nosuch
run isdir nosuch
run nostart
run --rm nostart
run -d nostart
run conflict
run --name foo conflict
run warn
run -t hello
run -it hello
run Upper
run a:b:c
run -a stdout hello
run -a stderr hello
run -a bogus hello
run -a stdin -i cat
run -d -a stdout hello
run -d --rm hello
run --rm --restart always hello
run --cidfile cid hello
run --platform linux/arm64 hello
run --platform bogus/ hello
create hello
create gone
create missing
create -it --name x hello sh -c ls
create conflict
create --rm --restart always hello
run -d --env-file env hello
run -d --env-file goodenv -e C=3 hello
run -d --env-file nosuch hello
run -d --label-file labels -l a=b -l c hello
run -d -l =x hello
run -d -e = hello
run -d -e =x hello
run -d --add-host h:1.2.3.4 --add-host g:host-gateway --add-host v=[::1] hello
run -d --add-host bad hello
run -d --add-host h:bad hello
run -d --annotation a=b hello
run -d --blkio-weight 100 --blkio-weight-device /dev/sda:200 hello
run -d --blkio-weight-device /dev/sda:5 hello
run -d --blkio-weight-device x hello
run -d --device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2kb --device-read-iops /dev/sda:10 --device-write-iops /dev/sda:20 hello
run -d --device-read-bps /dev/sda:x hello
run -d --device-read-iops /dev/sda:x hello
run -d --device-read-bps sda:1 hello
run -d --cap-add net_admin --cap-drop ALL --cap-add CAP_SYS_TIME hello
run -d --cgroup-parent /p --cgroupns private --cpu-period 1000 --cpu-quota 500 --cpu-shares 7 --cpuset-cpus 0 --cpuset-mems 0 hello
run -d --cgroupns bogus hello
run -d --cpus 1.5 hello
run -d --cpus x hello
run -d --cpus 0.0000000001 hello
run -d --device /dev/null --device /dev/zero:/dev/z:r --device /dev/full:rw hello
run -d --device a:b:c:d hello
run -d --device /dev/null:/dev/x:bad hello
run -d --device null hello
run -d --device vendor.com/class=name hello
run -d --device-cgroup-rule c\t1:3\trwm hello
run -d --device-cgroup-rule bad hello
run -d --dns 1.1.1.1 --dns-option ndots:1 --dns-search example.com --dns-opt x hello
run -d --dns bad hello
run -d --dns-search 999 hello
run -d --entrypoint sh hello -c ls
run -d --entrypoint= hello
run -d --expose 80 --expose 90-92/udp -P hello
run -d --expose 1:2 hello
run -d --expose x hello
run -d -p 80 -p 8080:80 -p 127.0.0.1:8081:81/udp -p [::1]:82:82 -p 9000-9002:9000-9002 hello
run -d -p 8000-8010:80 hello
run -d -p 80:x hello
run -d -p x:80 hello
run -d -p 80:80/bad hello
run -d -p 1-2:3-5 hello
run -d -p bad:80:80 hello
run -d -p 80: hello
run -d -p target=80,published=8080,protocol=tcp hello
run -d --gpus all hello
run -d --gpus 2 hello
run -d --gpus "device=0,1",driver=nvidia,capabilities=compute hello
run -d --gpus driver=x,count=2,options=a=b hello
run -d --gpus bogus hello
run -d --gpus x=y hello
run -d --group-add audio --group-add 12 hello
run -d --health-cmd true --health-interval 5s --health-retries 3 --health-timeout 2s --health-start-period 1s --health-start-interval 1s hello
run -d --health-cmd true --no-healthcheck hello
run -d --no-healthcheck hello
run -d --health-interval -5s hello
run -d --health-interval x hello
run -d --health-retries -1 --health-cmd x hello
run -d -h host --domainname dom --init --ip 10.0.0.2 --network n hello
run -d --init=false --ipc host --isolation default hello
run -d --ip bad --network n hello
run -d --kernel-memory 10m hello
run -d --link a:b --link c --network n hello
run -d --link a:b hello
run -d --link a:b:c hello
run -d --link-local-ip 169.254.1.1 --network n hello
run -d --log-driver json-file --log-opt max-size=1m hello
run -d --log-driver none --log-opt a=b hello
run -d --mac-address 92:d0:c6:0a:29:33 hello
run -d --mac-address bad hello
run -d -m 64m --memory-reservation 32m --memory-swap -1 --memory-swappiness 50 hello
run -d --memory-swappiness 101 hello
run -d --memory-swap 128m hello
run -d --mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave hello
run -d --mount type=bind,src=.,dst=/b hello
run -d --mount type=volume,src=v,target=/b,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=1,volume-subpath=s hello
run -d --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777 hello
run -d --mount type=image,src=i,dst=/t,image-subpath=p hello
run -d --mount src=v,dst=/t hello
run -d --mount type=bind,src=/a hello
run -d --mount type=bind,src=/a,dst=/b,bogus=1 hello
run -d --mount type=bind,src=/a,dst=/b,bogus hello
run -d --mount type=tmpfs,dst=/t,volume-nocopy hello
run -d --mount type=bind,src=/a,dst=/b,readonly=x hello
run -d --mount type=bind,src=/a,dst=/b,bind-recursive=writable hello
run -d --mount type=bind,src=/a,dst=/b,bind-recursive=bogus hello
run -d --mount type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rprivate hello
run -d --mount type=tmpfs,dst=/t,tmpfs-mode=9 hello
run -d --mount type=bogus,dst=/t hello
run -d --name n1 --network host hello
run -d --network container:abc hello
run -d --network n1 --network n2 --network-alias a hello
run -d --network name=n1,alias=x,ip=10.0.0.5,driver-opt=K=V,gw-priority=5,mac-address=92:d0:c6:0a:29:33 hello
run -d --network n1 --network n1 hello
run -d --network n1 --network host hello
run -d --network name=n1,alias=x --network-alias y hello
run -d --network name=n1,ip=1.2.3.4 --ip 1.2.3.5 hello
run -d --network alias=x hello
run -d --network name=n1,bogus=1 hello
run -d --network name=n1,gw-priority=x hello
run -d --network host --network-alias x hello
run -d --network-alias x hello
run -d --net n1 --net-alias x hello
run -d --oom-kill-disable hello
run -d --oom-kill-disable -m 64m --oom-score-adj 100 hello
run -d --pid host --uts host --userns host hello
run -d --pid container:x hello
run -d --pid bogus hello
run -d --uts bogus hello
run -d --userns bogus hello
run -d --ipc bogus hello
run -d --pids-limit 100 --privileged --read-only hello
run -d --restart on-failure:3 hello
run -d --restart always hello
run -d --restart unless-stopped:x hello
run -d --restart :3 hello
run -d --restart bogus hello
run -d --runtime runc --shm-size 128m --stop-signal INT --stop-timeout 5 hello
run -d --security-opt seccomp=seccomp.json --security-opt no-new-privileges --security-opt apparmor=unconfined hello
run -d --security-opt seccomp=nosuch hello
run -d --security-opt seccomp=badjson hello
run -d --security-opt seccomp=unconfined --security-opt label:disable hello
run -d --security-opt systempaths=unconfined hello
run -d --security-opt bogus hello
run -d --storage-opt size=10G hello
run -d --storage-opt bad hello
run -d --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=1 hello
run -d --sysctl bogus=1 hello
run -d --sysctl net.x hello
run -d --tmpfs /t --tmpfs /u:size=1m hello
run -d --ulimit nofile=10:20 --ulimit core=0 hello
run -d --ulimit bogus=1 hello
run -d --ulimit nofile=20:10 hello
run -d -u 1:2 -w /w hello
run -d -v /a:/b -v vol:/c:ro -v /anon -v ./rel:/d hello
run -d -v a:b:c:d hello
run -d -v ::x hello
run -d -v  hello
run -d -v /a:/b:ro,z --volume-driver d --volumes-from x hello
run -d -v .:/x hello
run -d -v ~/x:/x hello
run -d hello -x --flag
run -d --help-me hello
run --detach-keys ctrl-a hello
run --sig-proxy=false hello
run -dit hello
run --cpu-rt-period 1 --cpu-rt-runtime 2 -d hello
run --io-maxbandwidth 1m --io-maxiops 3 --cpu-count 1 --cpu-percent 2 -d hello
`)
	// A space inside an argument is written as a tab above.
	for i := range out {
		for j, a := range out[i].args {
			b := []byte(a)
			for k := 0; k+1 < len(b); k++ {
				if b[k] == '\\' && b[k+1] == 't' && (len(b) < 6 || string(b[:6]) != "table\\" || k == 5) {
					b = append(b[:k], append([]byte{' '}, b[k+2:]...)...)
				}
			}
			out[i].args[j] = string(b)
		}
	}
	return append(out,
		cmdline{args: []string{"run", "-i", "cat"}, stdin: "some input\nmore"},
		cmdline{args: []string{"run", "-i", "--rm", "cat"}, stdin: "some input\nmore"},
		cmdline{args: []string{"exec", "-i", "c1", "cat"}, stdin: "some input\nmore"},
		cmdline{args: []string{"container", "prune"}, stdin: "y\n"},
		cmdline{args: []string{"container", "prune"}, stdin: "n\n"},
		cmdline{args: []string{"login", "-u", "u", "--password-stdin"}, stdin: "pw\n"},
		cmdline{args: []string{"login", "-u", "u", "-p", "p", "reg.example.com:5000"}},
		cmdline{args: []string{"login", "-u", "u", "-p", "p", "--password-stdin"}, stdin: "pw\n"},
		cmdline{args: []string{"load"}, stdin: "TAR"},
		cmdline{args: []string{"ps"}, config: `{"psFormat":"table {{.Names}}"}`},
		cmdline{args: []string{"ps", "-q"}, config: `{"psFormat":"table {{.Names}}"}`},
		cmdline{args: []string{"images"}, config: `{"imagesFormat":"{{.ID}}"}`},
		cmdline{args: []string{"pull", "reg.example.com:5000/a"}, config: `{"auths":{"reg.example.com:5000":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"eDp5"}}}`},
		cmdline{args: []string{"pull", "a"}, config: `{"auths":{"reg.example.com:5000":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"eDp5"}}}`},
		cmdline{args: []string{"run", "-d", "-e", "no_proxy=z", "hello"}, config: `{"proxies":{"default":{"httpProxy":"http://p","noProxy":"x"}}}`},
		cmdline{args: []string{"run", "hello"}, config: `{"detachKeys":"ctrl-x"}`},
		cmdline{args: []string{"ps"}, env: []string{"DOCKER_API_VERSION=1.44"}},
		cmdline{args: []string{"run", "-d", "hello"}, env: []string{"DOCKER_DEFAULT_PLATFORM=linux/arm64"}},
		cmdline{args: []string{"logout", "reg.example.com:5000"}, config: `{"auths":{"reg.example.com:5000":{"auth":"dTpw"}}}`},
	)
}
