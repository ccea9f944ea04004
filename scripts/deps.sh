#!/bin/bash
# Installs the Debian packages that tests or the quickstart need, when something
# they bring is missing. Usage: deps.sh test|quickstart
set -eu

need=()
want() { # want COMMAND-OR-FILE PACKAGE
	case $1 in
	/*) [ -e "$1" ] || need+=("$2") ;;
	*) command -v "$1" >/dev/null 2>&1 || need+=("$2") ;;
	esac
}
# static busybox: the plain package's binary is dynamic
static_busybox() { [ -x /bin/busybox ] && ! grep -qa -e /ld-linux -e /ld-musl /bin/busybox; }

PATH=$PATH:/usr/sbin:/sbin
want docker-registry docker-registry
static_busybox || need+=(busybox-static)
want ip iproute2
want /etc/ssl/certs/ca-certificates.crt ca-certificates
if [ "${1:-test}" = test ]; then
	want mmdebstrap mmdebstrap
	want htpasswd apache2-utils
	want openssl openssl
	want nft nftables # to look at the rules, never to make them
	want curl curl
	want dig bind9-dnsutils
	# the client of the packaged Docker, to check that our daemon satisfies it
	[ -x /usr/local/bin/docker ] || want /usr/bin/docker docker.io
fi
[ ${#need[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: missing packages: ${need[*]} (run as root to install them)" >&2
	exit 1
fi
echo "deps: installing ${need[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# No service of these packages may start here: the tests start what they need.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	trap 'rm -f $policy' EXIT
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
