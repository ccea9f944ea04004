#!/bin/bash
# Builds Gantry, starts a private daemon (own data-root, socket and network
# namespace), serves a registry on loopback, and runs images from it. Nothing is left
# behind: no process, no file, no interface, no rule. Needs root, Go and git.
set -euo pipefail
cd "$(dirname "$0")/.."
REG=127.0.0.1:5000

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() {
	printf '\n\033[1m$ %s\033[0m\n' "$*"
	"$@"
}

if [ "${1:-}" != --inside ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "quickstart needs root: containers are made of namespaces, mounts and cgroups (sudo make quickstart)" >&2
		exit 1
	fi
	say "Building docker, dockerd and gantry-runtime"
	make --no-print-directory build
	say "Fetching a registry and a shell to try it with (into .cache, nothing is installed)"
	scripts/deps.sh quickstart
	# Everything from here on lives in a network namespace of its own.
	ROOT=$(mktemp -d /var/tmp/gantry-quickstart-XXXXXX)
	export ROOT
	trap 'rm -rf --one-file-system "$ROOT"' EXIT
	export PATH=$PWD/.cache/tools/bin:$PATH
	CGO_ENABLED=0 go build -buildvcs=false -o "$ROOT/mkimage" ./test/tools/mkimage
	unshare --net -- "$0" --inside
	exit
fi

export PATH=$PWD/bin:$PWD/.cache/tools/bin:$PATH:/usr/sbin:/sbin
export DOCKER_HOST=unix://$ROOT/docker.sock DOCKER_CONFIG=$ROOT/client DOCKER_CLI_HINTS=false
pids=()
cleanup() {
	status=$?
	trap - EXIT INT TERM
	if [ -S "$ROOT/docker.sock" ]; then
		ids=$(docker ps -aq 2>/dev/null) || true
		# shellcheck disable=SC2086 # a list of ids
		[ -z "$ids" ] || docker rm -f $ids >/dev/null 2>&1 || true
	fi
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	if [ $status -ne 0 ] && [ -e "$ROOT/dockerd.log" ]; then
		echo "quickstart failed; the daemon's last words:" >&2
		tail -n 20 "$ROOT/dockerd.log" >&2
	fi
	for dir in /sys/fs/cgroup/*/gantry-quickstart /sys/fs/cgroup/gantry-quickstart; do
		[ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

until_ok() { # until_ok WHAT COMMAND...: tries for 20 seconds
	local what=$1 deadline=$((SECONDS + 20))
	shift
	until "$@" >/dev/null 2>&1; do
		if [ $SECONDS -ge $deadline ]; then
			echo "$what does not answer" >&2
			return 1
		fi
		sleep 0.05
	done
}

busybox ip link set lo up
say "Starting a private daemon: $ROOT"
echo '{}' >"$ROOT/daemon.json"
dockerd --config-file "$ROOT/daemon.json" --data-root "$ROOT/data" --exec-root "$ROOT/run" --pidfile "$ROOT/pid" \
	-H "$DOCKER_HOST" --cgroup-parent /gantry-quickstart >"$ROOT/dockerd.log" 2>&1 &
pids+=($!)

say "Serving a registry on $REG, with the hello-world image and a shell in it"
cat >"$ROOT/registry.yml" <<YML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $ROOT/registry}}
http: {addr: "$REG"}
YML
docker-registry serve "$ROOT/registry.yml" >"$ROOT/registry.log" 2>&1 &
pids+=($!)
"$ROOT/mkimage" ping "http://$REG"
"$ROOT/mkimage" push "http://$REG" hello=hello-world:latest busybox=busybox:latest
until_ok "the daemon" docker version

show docker run --name hello $REG/hello-world
if [ -t 0 ] && [ -t 1 ] && [ -z "${QUICKSTART_SCRIPTED:-}" ]; then
	say "A shell in a container (leave it with: exit)"
	show docker run -it --name shell -h gantry $REG/busybox || true
else
	show docker run -i --name shell -h gantry $REG/busybox <<'SH'
echo "I am pid $$ on $(hostname), $(id -un), root file system of $(ls / | wc -l) entries"
ip -o -4 addr show eth0
ps
SH
fi
show docker ps -a
show docker images
show docker logs hello
say "Done. Everything it made is removed now. Next: make install, start dockerd, and type docker as you know it."
