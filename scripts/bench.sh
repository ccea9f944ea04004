#!/bin/bash
# The engine as a whole beside its physical floor, and beside another engine when
# PEER names a dockerd (PEER=/usr/sbin/dockerd scripts/bench.sh), or beside another build of this one when BASE names
# its directory of binaries: then `docker run --rm` of both command lines is measured too. Each daemon lives in a
# network namespace and a control group of its own; nothing is left behind. N: rounds; ONLY: part of an
# operation's name; NOPROXY=1: the other engine once more, without its userland proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "bench.sh needs root" >&2
	exit 1
fi
scripts/deps.sh test
export PATH=$PWD/.cache/tools/bin:$PATH:/usr/sbin:/sbin
[ -x bin/dockerd ] || make --no-print-directory build
ROOT=$(mktemp -d /var/tmp/gantry-bench-XXXXXX)
GROUP=/gantry-bench-$$
pids=() spaces=()

groups() { # the directories of a control group, in every hierarchy
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		echo "/sys/fs/cgroup$1"
	else
		for h in /sys/fs/cgroup/*/; do [ -e "$h/cgroup.procs" ] && echo "${h%/}$1"; done
	fi
}
cleanup() {
	status=$?
	trap - EXIT INT TERM
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do
		for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
	done
	sleep 0.5
	for ns in "${spaces[@]}"; do ip netns delete "$ns" 2>/dev/null || true; done
	for dir in $(groups "$GROUP"); do
		[ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
	done
	while read -r _ dir _; do
		case $dir in "$ROOT"/*) umount -l "$dir" || true ;; esac
	done < <(tac /proc/mounts)
	[ $status -eq 0 ] || tail -n 5 "$ROOT"/*.log >&2 || true
	rm -rf --one-file-system "$ROOT"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

CGO_ENABLED=0 go build -buildvcs=false -o "$ROOT/mkimage" ./test/tools/mkimage
CGO_ENABLED=0 go build -buildvcs=false -o "$ROOT/enginebench" ./test/tools/enginebench
"$ROOT/mkimage" docker-archive "$ROOT/busybox.tar" busybox=bench/busybox:latest >/dev/null

engines=()
start() { # start NAME DOCKERD DOCKER ARGS...: DOCKER is its command line, - for none
	local name=$1 dockerd=$2 docker=,$3 dir=$ROOT/$1 ns=gantry-bench-$$-$1
	shift 3
	mkdir -p "$dir"
	ip netns add "$ns"
	spaces+=("$ns")
	nsenter --net="/run/netns/$ns" ip link set lo up
	(
		for g in $(groups "$GROUP/$name/engine"); do
			mkdir -p "$g"
			case $g in /sys/fs/cgroup/cpuset/*) # v1: empty until it is told
				for d in "$(dirname "$(dirname "$g")")" "$(dirname "$g")" "$g"; do
					for f in cpus mems; do cat "/sys/fs/cgroup/cpuset/cpuset.$f" >"$d/cpuset.$f"; done
				done ;;
			esac
			echo $BASHPID >"$g/cgroup.procs"
		done
		exec nsenter --net="/run/netns/$ns" "$dockerd" --config-file "$ROOT/daemon.json" --data-root "$dir/data" \
			--exec-root "$dir/exec" --pidfile "$dir/pid" -H "unix://$dir/docker.sock" "$@"
	) >"$ROOT/$name.log" 2>&1 &
	pids+=($!)
	for _ in $(seq 300); do
		bin/docker -H "unix://$dir/docker.sock" version >/dev/null 2>&1 && break
		sleep 0.1
	done
	bin/docker -H "unix://$dir/docker.sock" load -q -i "$ROOT/busybox.tar" >/dev/null
	engines+=("$name=unix://$dir/docker.sock,$GROUP/$name${docker%,-}")
}
echo '{}' >"$ROOT/daemon.json"
[ -z "${PEER:-}" ] || start peer "$PEER" -
[ -z "${PEER:-}" ] || [ -z "${NOPROXY:-}" ] || start peer-noproxy "$PEER" - --userland-proxy=false
[ -z "${BASE:-}" ] || start base "$(realpath "$BASE")/dockerd" "$(realpath "$BASE")/docker"
start gantry "$PWD/bin/dockerd" "$PWD/bin/docker"
"$ROOT/enginebench" -n "${N:-40}" -only "${ONLY:-}" "${engines[@]}"
