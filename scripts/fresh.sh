#!/bin/bash
# What a new machine sees: makes a minimal Debian with git, make and this machine's Go,
# enters it with mount, pid, IPC, host name and (on cgroup version 1) cgroup namespaces of
# its own, clones the committed HEAD there, and runs the two commands of README: make
# quickstart, make test. Of this machine it has the kernel, the network, the settings of
# apt and of Go's module proxy, and read-only the downloads in Go's module cache; no
# build cache, no package, no image. Nothing is left behind. FRESH_DIR: where its root is
# made (/var/tmp; no overlay file system); FRESH_RUN: other commands than those two.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}"

say() { printf '\n== %s [%s]\n' "$*" "$(date +%T)"; }

if [ "${1:-}" = --enter ]; then # in the new namespaces, still on the old root
	root=$2
	mount --bind "$root" "$root"
	cd "$root"
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
		mount --rbind /sys/fs/cgroup sys/fs/cgroup
	else
		mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
		while IFS=$'\t' read -r point type options; do
			mkdir "sys/fs/cgroup/$point"
			mount -t "$type" -o "$options" cgroup "sys/fs/cgroup/$point"
		done <"$root/root/cgroups"
	fi
	mount --rbind /dev dev
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
	mount -t tmpfs -o mode=1777 tmpfs dev/shm
	mount -t tmpfs -o mode=755 tmpfs run
	mount --bind "$3" usr/local/go
	mount -o remount,bind,ro usr/local/go
	if [ -d "$4" ]; then
		mount --bind "$4" mnt
		mount -o remount,bind,ro mnt
	fi
	hostname fresh
	mkdir old
	pivot_root . old
	exec chroot . /bin/bash /root/inside
fi

if [ "$(id -u)" != 0 ]; then
	echo "fresh.sh needs root: it makes namespaces and mounts" >&2
	exit 1
fi
WORK=$(mktemp -d "${FRESH_DIR:-/var/tmp}/gantry-fresh-XXXXXX")
ROOT=$WORK/root
child=
cleanup() {
	status=$?
	trap - EXIT INT TERM HUP
	# With the first process of its pid namespace everything in there ends, and with its
	# mount namespace every mount.
	if [ -n "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	for dir in "${groups[@]}"; do
		for _ in $(seq 50); do
			find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true
			[ -d "$dir" ] || break
			sleep 0.1
		done
	done
	chattr -R -f -i "$ROOT/var/tmp" 2>/dev/null || true
	rm -rf --one-file-system "$WORK"
	say "fresh: ended with status $status after $((SECONDS / 60)) min $((SECONDS % 60)) s"
	exit $status
}
groups=()
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
if [ "$(stat -f -c %T "$WORK")" = overlayfs ]; then
	echo "fresh.sh: $WORK is on an overlay file system; FRESH_DIR names another place" >&2
	exit 1
fi

say "fresh: making a minimal Debian in $WORK"
scripts/deps.sh mmdebstrap
suite=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-bookworm}" || echo bookworm)
options=()
while read -r name value; do # proxies of this machine's apt, when it has any
	options+=("--aptopt=$name $value")
done < <(apt-config dump 2>/dev/null | grep -E '^Acquire::https?::Proxy(::[^ ]+)? ' || true)
.cache/tools/bin/mmdebstrap --quiet --variant=minbase --include=git,make,ca-certificates "${options[@]}" \
	"$suite" "$ROOT" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
# How this machine reaches Debian's archive and Go's module proxy.
[ ! -s /etc/apt/sources.list ] && [ -z "$(ls -A /etc/apt/sources.list.d 2>/dev/null)" ] || rm -f "$ROOT/etc/apt/sources.list"
for path in sources.list sources.list.d trusted.gpg trusted.gpg.d keyrings apt.conf apt.conf.d auth.conf auth.conf.d preferences.d; do
	[ ! -e "/etc/apt/$path" ] || { rm -rf "$ROOT/etc/apt/$path"; cp -RL "/etc/apt/$path" "$ROOT/etc/apt/"; }
done
for path in /etc/ssl/certs/ca-certificates.crt /etc/resolv.conf /etc/hosts; do
	[ ! -e "$path" ] || cp -L --remove-destination "$path" "$ROOT$path"
done
echo fresh >"$ROOT/etc/hostname"
modules=$("$GO" env GOMODCACHE)/cache/download
{
	for name in GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOFLAGS GOTOOLCHAIN; do
		printf 'export %s=%q\n' "$name" "$("$GO" env "$name")"
	done
	for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY CI TERM; do
		[ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
	done
} >"$ROOT/root/environment"
mkdir -p "$ROOT/usr/local/go"
# The commit that is tried, and nothing else of this checkout.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
[ -z "$(git status --porcelain 2>/dev/null)" ] || echo "fresh.sh: what is not committed is not tried" >&2
git clone --quiet --bare --no-local . "$ROOT/root/gantry.git"

cat >"$ROOT/root/inside" <<'INSIDE'
set -eu
umount -l /old
rmdir /old
export PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
. /root/environment
[ ! -d /mnt/cache ] && [ -z "$(ls /mnt)" ] || export GOPROXY="file:///mnt,$GOPROXY"
cd /root
phase() {
	local begin=$SECONDS status=0
	printf '\n== fresh: %s [%s]\n' "$*" "$(date +%T)"
	"$@" </dev/null || status=$?
	printf '\n== fresh: %s: status %d after %d s [%s]\n' "$*" $status $((SECONDS - begin)) "$(date +%T)"
	return $status
}
phase git clone --quiet /root/gantry.git gantry
cd gantry
git log -1 --format='== fresh: at %h %s'
if [ -n "${FRESH_RUN:-}" ]; then
	phase bash -c "$FRESH_RUN"
else
	phase make quickstart
	phase make test
	left=$(git status --porcelain)
	[ -z "$left" ] || { printf 'fresh: written into the source tree:\n%s\n' "$left" >&2; exit 1; }
fi
INSIDE
[ -z "${FRESH_RUN:-}" ] || printf 'export FRESH_RUN=%q\n' "$FRESH_RUN" >>"$ROOT/root/environment"

# Cgroups of version 1: one of its own in each hierarchy becomes the root of its view.
: >"$ROOT/root/cgroups"
namespaces=(--mount --pid --ipc --uts)
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
	namespaces+=(--cgroup)
	while read -r point type options; do
		name=${options##*,name=}
		case $options in
		*,name=*) hierarchy="name=${name%%,*}" mount="none,name=${name%%,*}" ;;
		*) hierarchy=$(basename "$point") mount=$(basename "$point") ;;
		esac
		[ "$type" = cgroup ] || hierarchy='' mount=defaults
		own=$(awk -F: -v h="$hierarchy" '$2 == h { print $3 }' /proc/self/cgroup)
		own=$point${own%/}
		[ -d "$own" ] || own=$point
		dir=$own/gantry-fresh-$$
		mkdir "$dir"
		groups+=("$dir")
		if [ -e "$dir/cpuset.cpus" ]; then
			cat "$own/cpuset.cpus" >"$dir/cpuset.cpus"
			cat "$own/cpuset.mems" >"$dir/cpuset.mems"
		fi
		printf '%s\t%s\t%s\n' "$(basename "$point")" "$type" "$mount" >>"$ROOT/root/cgroups"
	done < <(awk '$3 ~ /^cgroup2?$/ && $2 ~ /^\/sys\/fs\/cgroup\// { print $2, $3, $4 }' /proc/mounts)
fi
say "fresh: entering it"
(
	for dir in "${groups[@]}"; do echo $BASHPID >"$dir/cgroup.procs"; done
	exec setpriv --pdeathsig KILL unshare "${namespaces[@]}" --fork --kill-child --propagation private -- \
		env -i "PATH=$PATH" scripts/fresh.sh --enter "$ROOT" "$("$GO" env GOROOT)" "$modules"
) &
child=$!
wait "$child" && status=0 || status=$?
child=
exit $status
