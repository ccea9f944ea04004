#!/bin/bash
# Fetches and makes what tests or the quickstart need, by name, into .cache of this
# project. Nothing is installed on the machine and nothing of it is changed: Debian's
# packages are fetched by an apt with a state of its own and only unpacked, Go programs
# are built at the versions their go.mod pins.
# Usage: deps.sh test|quickstart|mmdebstrap
set -euo pipefail
cd "$(dirname "$0")/.."
WHAT=${1:-test}
: "${GO:=go}"
CACHE=$PWD/.cache
BIN=$CACHE/tools/bin         # in PATH of make and of the tests
TREE=$CACHE/tools/debian     # Debian's packages, unpacked
PINS=test/testdata/tools     # modules that pin the programs made of Go
export GOFLAGS=${GOFLAGS:--buildvcs=false} CGO_ENABLED=0
export GANTRY_TEST_CACHE=${GANTRY_TEST_CACHE:-$CACHE/images}

# Debian's packages, and the programs of each that are called.
packages() {
	echo "patchelf"
	case $WHAT in
	mmdebstrap) echo "mmdebstrap mmdebstrap"; return ;;
	quickstart) echo "busybox-static busybox"; return ;;
	esac
	cat <<-LIST
		busybox-static busybox
		iproute2 ip tc
		netbase
		nftables nft
		curl curl
		bind9-dnsutils dig
		procps ps pgrep kill
		mmdebstrap mmdebstrap
		docker.io dockerd
		containerd containerd containerd-shim-runc-v2
		runc runc
		crun crun
		skopeo skopeo
		podman podman
		conmon conmon
		dbus-daemon dbus-daemon
		uidmap newuidmap newgidmap
	LIST
}

say() { printf 'deps: %s\n' "$*" >&2; }

mkdir -p "$BIN" "$TREE"
exec 9>"$CACHE/deps.lock"
flock 9

# apt with lists, cache and state below .cache, knowing of no installed package and
# running none of the machine's hooks.
apt() {
	local tool=$1
	shift
	"$tool" -qq -c "$CACHE/apt/apt.conf" "$@"
}
apt_prepare() {
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
		say "needs Debian's apt-get and dpkg-deb, to fetch and unpack packages"
		exit 1
	}
	mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/archives/partial"
	: >"$CACHE/apt/status"
	cat >"$CACHE/apt/apt.conf" <<-CONF
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear DPkg;
		#clear Acquire::IndexTargets::deb::DEP-11;
		#clear Acquire::IndexTargets::deb::CNF;
		Dir::State "$CACHE/apt";
		Dir::State::status "$CACHE/apt/status";
		Dir::State::extended_states "$CACHE/apt/extended_states";
		Dir::Cache "$CACHE/apt";
		Dir::Cache::archives "$CACHE/apt/archives";
		Dir::Log "$CACHE/apt";
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
}

# unpack PACKAGE...: these and all they depend on, but for the C library: the
# machine's own loader starts the programs.
unpack() {
	say "fetching $* (unpacked into .cache, not installed)"
	apt_prepare
	apt apt-get update
	apt apt-get install --download-only --yes "$@" >/dev/null
	local deb name
	for deb in "$CACHE"/apt/archives/*.deb; do
		name=$(basename "$deb")
		case ${name%%_*} in
		libc6 | libc-bin | usrmerge | usr-is-merged | base-files) ;;
		*) dpkg-deb --extract "$deb" "$TREE" ;;
		esac
		echo "$name"
	done >"$TREE/packages"
	rm -rf "$CACHE/apt"
}

find_program() { # find_program NAME: its path in the tree
	local dir
	for dir in usr/bin bin usr/sbin sbin; do
		[ ! -x "$TREE/$dir/$1" ] || { echo "$TREE/$dir/$1"; return; }
	done
	say "the packages brought no $1"
	return 1
}

# command_of NAME: a command in $BIN that runs the tree's program with the tree's libraries.
# Their place is written into the program, as many run each other with an empty environment.
command_of() {
	local program needs=
	program=$(find_program "$1")
	rm -f "$BIN/$1"
	case $1 in
	nft) needs=/etc/protocols ;;
	busybox) ln -s "$program" "$BIN/$1" && return ;; # static, and tests copy it
	esac
	if head -c 64 "$program" | grep -qa '^#!.*perl'; then
		{
			echo '#!/bin/sh'
			echo "export LD_LIBRARY_PATH=$LIBRARIES"
			echo "export PERL5LIB=$(printf '%s:' "$TREE"/usr/share/perl5 "$TREE"/usr/share/perl/5.*[0-9] "$TREE"/usr/lib/*/perl/5.*[0-9] "$TREE"/usr/lib/*/perl-base)"
			echo "exec $TREE/usr/bin/perl $program \"\$@\""
		} >"$BIN/$1"
	else
		LD_LIBRARY_PATH=$LIBRARIES "$TREE/usr/bin/patchelf" --force-rpath --set-rpath "$LIBRARIES" "$program"
		if [ -z "$needs" ]; then
			ln -s "$program" "$BIN/$1"
			return
		fi
		# What it reads in /etc and this machine lacks, it sees in a mount namespace of its own.
		cat >"$BIN/$1" <<-WRAP
			#!/bin/sh
			[ ! -e $needs ] || exec $program "\$@"
			exec unshare --mount --propagation private sh -c 'mount -t overlay -o lowerdir=/etc:$TREE/etc overlay /etc && exec "\$0" "\$@"' $program "\$@"
		WRAP
	fi
	chmod 755 "$BIN/$1"
}

# stamped NAME TEXT: whether what NAME stands for was made from TEXT; made NAME TEXT says so.
stamped() { [ "$(cat "$CACHE/tools/$1.stamp" 2>/dev/null)" = "$2" ]; }
made() { echo "$2" >"$CACHE/tools/$1.stamp"; }

debian_programs() {
	local list have="debian-$WHAT"
	list=$(packages)"
$TREE
$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
	stamped "$have" "$list" && return 0
	# shellcheck disable=SC2046 # names
	unpack $(packages | cut -d' ' -f1)
	LIBRARIES=$(find "$TREE/lib" "$TREE/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu*' -printf '%p:' 2>/dev/null || true)
	LIBRARIES=${LIBRARIES%:}
	local program
	for program in $(packages | cut -s -d' ' -f2-); do command_of "$program"; done
	made "$have" "$list"
}

# build NAME FILES: has build_NAME make $BIN/NAME unless it was made from the same files.
build() {
	local name=$1 sum
	shift
	sum="$(cat "$@" scripts/deps.sh | sha256sum | cut -d' ' -f1) $("$GO" env GOVERSION)"
	[ ! -x "$BIN/$name" ] || ! stamped "$name" "$sum" || return 0
	"build_$name"
	made "$name" "$sum"
}
build_docker-registry() {
	say "building the registry of github.com/distribution/distribution"
	(cd $PINS/registry && "$GO" build -v -trimpath -ldflags '-s -w' -o "$BIN/docker-registry" .) 2>&1 | scripts/progress.sh >&2
}
build_docker() {
	local version source dir=$CACHE/tools/docker-cli
	version=$(sed -n 's|.*github.com/docker/cli v\([0-9.]*\)+incompatible$|\1|p' $PINS/docker/go.mod)
	say "building Docker's own client $version from github.com/docker/cli"
	source=$(cd $PINS/docker && "$GO" mod download github.com/docker/cli && "$GO" list -m -f '{{.Dir}}' github.com/docker/cli)
	# Without a go.mod Go would take its source for Go 1.16's: it gets the one that pins
	# its modules.
	[ ! -e "$dir" ] || { chmod -R u+w "$dir" && rm -rf "$dir"; }
	cp -R "$source" "$dir"
	chmod -R u+w "$dir"
	rm -rf "$dir/vendor"
	sed -e 's|^module .*|module github.com/docker/cli|' -e '/github.com\/docker\/cli v/d' $PINS/docker/go.mod >"$dir/go.mod"
	cp $PINS/docker/go.sum "$dir/"
	(cd "$dir" && "$GO" build -v -trimpath -tags grpcnotrace,osusergo,netgo \
		-ldflags "-s -w -X github.com/docker/cli/cli/version.Version=$version" -o "$BIN/docker" ./cmd/docker) 2>&1 | scripts/progress.sh >&2
	rm -rf "$dir"
}

debian_programs
[ "$WHAT" != mmdebstrap ] || exit 0
build docker-registry $PINS/registry/main.go $PINS/registry/go.mod $PINS/registry/go.sum
[ "$WHAT" = test ] || exit 0
build docker $PINS/docker/go.mod $PINS/docker/go.sum

export PATH=$BIN:$PATH:/usr/sbin:/sbin
if ! "$GO" run ./test/tools/mkimage cached 2>/dev/null; then
	if [ "$(id -u)" != 0 ]; then
		say "not root: the Debian test images are left out, end-to-end tests need them (sudo make deps)"
		exit 0
	fi
	say "making the test images debian and services from Debian's packages"
	"$GO" run ./test/tools/mkimage cache >&2
fi
