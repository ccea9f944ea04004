#!/bin/bash
# Traffic of containers' networks beside another engine's, with and without its userland
# proxy, and beside a veth pair on a bridge made by hand, in one run:
# PEER=/usr/sbin/dockerd scripts/nettraffic.sh. Rounds of SECS seconds of iperf3 alternate;
# the table has medians. Each engine lives in a network namespace of its own with another
# host on a wire; nothing is left behind. N: rounds.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "nettraffic.sh needs root" >&2
	exit 1
fi
ROOT=$(mktemp -d /var/tmp/gantry-traffic-XXXXXX)
pids=() spaces=() engines=()
cleanup() {
	trap - EXIT INT TERM
	for dir in "$ROOT"/*/; do
		[ ! -S "${dir}docker.sock" ] || bin/docker -H "unix://${dir}docker.sock" rm -f aa bb >/dev/null 2>&1 || true
	done
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do
		for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
	done
	sleep 0.5
	for ns in "${spaces[@]}"; do ip netns delete "$ns" 2>/dev/null || true; done
	while read -r _ dir _; do
		case $dir in "$ROOT"/*) umount -l "$dir" || true ;; esac
	done < <(tac /proc/mounts)
	rm -rf --one-file-system "$ROOT"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

CGO_ENABLED=0 go build -buildvcs=false -o "$ROOT/mkimage" ./test/tools/mkimage
"$ROOT/mkimage" docker-archive "$ROOT/busybox.tar" busybox=bb:latest >/dev/null
echo '{}' >"$ROOT/daemon.json"

world() { # world NAME: a host's namespace, with another host on a wire
	local ns=traffic-$$-$1
	for n in "$ns" "$ns-far"; do
		ip netns add "$n"
		spaces+=("$n")
		ip -n "$n" link set lo up
	done
	ip -n "$ns" link add wire0 type veth peer name wire0 netns "$ns-far"
	ip -n "$ns" addr add 192.0.2.1/24 dev wire0
	ip -n "$ns-far" addr add 192.0.2.2/24 dev wire0
	ip -n "$ns" link set wire0 up
	ip -n "$ns-far" link set wire0 up
}
serve() { # serve PID: two listeners of iperf3 in a network namespace
	for port in 5201 5202; do
		nsenter --net="$1" iperf3 -s -p $port >/dev/null 2>&1 &
		pids+=($!)
	done
}
start() { # start NAME DOCKERD ARGS...
	local name=$1 dockerd=$2 dir=$ROOT/$1
	shift 2
	world "$name"
	mkdir -p "$dir"
	nsenter --net="/run/netns/traffic-$$-$name" "$dockerd" --config-file "$ROOT/daemon.json" --data-root "$dir/data" \
		--exec-root "$dir/exec" --pidfile "$dir/pid" -H "unix://$dir/docker.sock" "$@" >"$ROOT/$name.log" 2>&1 &
	pids+=($!)
	local d=(bin/docker -H "unix://$dir/docker.sock")
	for _ in $(seq 300); do
		"${d[@]}" version >/dev/null 2>&1 && break
		sleep 0.1
	done
	"${d[@]}" load -q -i "$ROOT/busybox.tar" >/dev/null
	"${d[@]}" network create net >/dev/null
	"${d[@]}" run -d --name aa --network net -p 5201:5201 -p 5202:5202 -p 5202:5202/udp bb sleep 3600 >/dev/null
	"${d[@]}" run -d --name bb --network net bb sleep 3600 >/dev/null
	serve "/proc/$("${d[@]}" inspect -f '{{.State.Pid}}' aa)/ns/net"
	eval "addr_$name=$("${d[@]}" inspect -f '{{.NetworkSettings.Networks.net.IPAddress}}' aa)"
	eval "from_$name=/proc/$("${d[@]}" inspect -f '{{.State.Pid}}' bb)/ns/net"
	engines+=("$name")
}
world hand
ip -n "traffic-$$-hand" link add br0 type bridge
ip -n "traffic-$$-hand" addr add 172.18.0.1/16 dev br0
ip -n "traffic-$$-hand" link set br0 up
for i in 2 3; do
	ns=traffic-$$-hand-$i
	ip netns add "$ns"
	spaces+=("$ns")
	ip -n "traffic-$$-hand" link add "v$i" type veth peer name eth0 netns "$ns"
	ip -n "traffic-$$-hand" link set "v$i" master br0 up
	ip -n "$ns" addr add "172.18.0.$i/16" dev eth0
	ip -n "$ns" link set eth0 up
	ip -n "$ns" link set lo up
done
serve "/run/netns/traffic-$$-hand-2"
start gantry "$PWD/bin/dockerd"
[ -z "${PEER:-}" ] || start peer "$PEER"
[ -z "${PEER:-}" ] || start noproxy "$PEER" --userland-proxy=false
sleep 1

one() { # one NAMESPACE ARGS...: bits, or datagrams received, a second
	nsenter --net="$1" iperf3 -J -t "${SECS:-2}" "${@:2}" 2>/dev/null | python3 -c '
import json, sys
e = json.load(sys.stdin)["end"]
s = e.get("sum", {})
if "packets" in s:
    print((s["packets"] - s["lost_packets"]) / s["seconds"] / 1e3)
else: # nobody answers: 0
    print(e.get("sum_received", {"bits_per_second": 0})["bits_per_second"] / 1e9)'
}
round() { # round NAME ADDRESS FROM
	local host=/run/netns/traffic-$$-$1
	echo "$1|container to container, TCP Gbit/s|$(one "$3" -c "$2")"
	echo "$1|container to container, UDP 64 bytes, 1,000/s|$(one "$3" -c "$2" -p 5202 -u -b 0 -l 64)"
	echo "$1|host to container's address, TCP Gbit/s|$(one "$host" -c "$2")"
	[ "$1" != hand ] || return 0
	echo "$1|host to published port by 127.0.0.1, TCP Gbit/s|$(one "$host" -c 127.0.0.1)"
	echo "$1|host to published port by ::1, TCP Gbit/s|$(one "$host" -c ::1)"
	echo "$1|host to published port by its address, TCP Gbit/s|$(one "$host" -c 192.0.2.1)"
	echo "$1|another host to published port, TCP Gbit/s|$(one "$host-far" -c 192.0.2.1)"
	echo "$1|another host to published port, UDP 64 bytes, 1,000/s|$(one "$host-far" -c 192.0.2.1 -p 5202 -u -b 0 -l 64)"
}
for _ in $(seq "${N:-5}"); do
	round hand 172.18.0.2 "/run/netns/traffic-$$-hand-3"
	for name in "${engines[@]}"; do
		addr=addr_$name from=from_$name
		round "$name" "${!addr}" "${!from}"
	done
done | python3 -c '
import statistics, sys
seen = {}
for line in sys.stdin:
    name, what, value = line.strip().split("|")
    seen.setdefault(what, {}).setdefault(name, []).append(float(value))
names = []
for cols in seen.values():
    names += [n for n in cols if n not in names]
print("| path | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
for what, cols in seen.items():
    print("| " + what + " | " + " | ".join("%.1f" % statistics.median(cols[n]) if n in cols else "" for n in names) + " |")'
