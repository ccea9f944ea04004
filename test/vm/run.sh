#!/bin/bash
# Runs tests as root of a virtual machine that has a pure cgroup v2 hierarchy, on
# Debian's kernel, by emulation (no KVM needed). What is tested is compiled here and
# packed with busybox into an initramfs; the machine prints to its serial console
# and has no disk and no network card.
#
#   test/vm/run.sh                       the packages of the runtime and a smoke test of the engine
#   test/vm/run.sh ./oci/cgroup          one package
#   VM_RUN=TestUnified test/vm/run.sh ./oci  tests by name
#   VM_SMOKE=0 test/vm/run.sh            without the engine
#
# Tests of load, whose deadlines are made for real CPUs, are left out.
#
# Exit status: 0 all passed, 1 something failed, 2 the machine did not get to its end,
# 77 skipped: qemu, a kernel or busybox is missing (apt-get install qemu-system-x86
# linux-image-amd64 busybox-static cpio kmod).
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

skip() {
	echo "vm: skipped: $*" >&2
	exit 77
}
QEMU=${VM_QEMU:-qemu-system-x86_64}
for tool in "$QEMU" busybox cpio modprobe; do
	command -v "$tool" >/dev/null || skip "no $tool"
done
KERNEL=${VM_KERNEL:-$(find /boot -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)}
[ -r "$KERNEL" ] || skip "no kernel in /boot"
RELEASE=${KERNEL##*/vmlinuz-}
[ -d "/lib/modules/$RELEASE" ] || skip "no modules of $RELEASE"

PACKAGES=("$@")
if [ ${#PACKAGES[@]} -eq 0 ]; then
	PACKAGES=(./oci/cgroup ./oci ./oci/init ./oci/ocicli ./shim/shimd)
fi
SMOKE=${VM_SMOKE:-$([ $# -eq 0 ] && echo 1 || echo 0)}
TIME=${VM_TIME:-900}

WORK=$(mktemp -d /var/tmp/gantry-vm-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
ROOT=$WORK/root
mkdir -p "$ROOT"/{bin,sbin,dev,proc,sys,tmp,run,etc,root,var/tmp,usr/bin,usr/sbin,t,lib/modules}
cp "$(command -v busybox)" "$ROOT/bin/busybox"
cp test/vm/init "$ROOT/init"
cp test/vm/smoke "$ROOT/smoke"
ln -s /bin/busybox "$ROOT/bin/sh"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$ROOT/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$ROOT/etc/group"

export CGO_ENABLED=0
for pkg in "${PACKAGES[@]}"; do
	at=$ROOT/t/${pkg#./}
	mkdir -p "$at"
	go test -buildvcs=false -c -o "$at/pkg.test" "$pkg"
	[ ! -d "$pkg/testdata" ] || cp -r "$pkg/testdata" "$at/"
	echo "${pkg#./}" >>"$ROOT/t/list"
done
printf '%s' "${VM_RUN:-.}" >"$ROOT/t/run"
if [ "$SMOKE" = 1 ]; then
	go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$ROOT/usr/bin/" ./cmd/docker ./cmd/dockerd ./cmd/gantry-runtime
	go build -buildvcs=false -o "$WORK/mkimage" ./test/tools/mkimage
	"$WORK/mkimage" docker-archive "$ROOT/t/busybox.tar" busybox=busybox:latest
fi

# The modules that the engine needs and those they need.
for m in overlay veth bridge br_netfilter nf_tables nft_chain_nat nft_ct nft_nat nft_masq nft_redir nft_fib_inet \
	nft_reject_inet nft_log nft_limit nft_compat xt_addrtype dummy macvlan ipvlan ip_vs ip_vs_rr 8021q tun loop brd ext4; do
	modprobe -S "$RELEASE" --show-depends "$m" 2>/dev/null || true
done | awk '$1 == "insmod" {print $2}' | sort -u >"$WORK/modules"
while read -r ko; do
	ko=$(readlink -f "$ko")
	mkdir -p "$ROOT/lib/modules/$RELEASE/$(dirname "${ko#*/"$RELEASE"/}")"
	cp "$ko" "$ROOT/lib/modules/$RELEASE/${ko#*/"$RELEASE"/}"
done <"$WORK/modules"
cp "/lib/modules/$RELEASE"/modules.{dep,alias,symbols,softdep,builtin} "$ROOT/lib/modules/$RELEASE/"

(cd "$ROOT" && find . -print0 | cpio --quiet -0 -o -H newc | gzip -1) >"$WORK/initrd"
echo "vm: $RELEASE, $(du -h "$WORK/initrd" | cut -f1) of initramfs, ${PACKAGES[*]}" >&2

CODE=0
timeout --foreground "$TIME" "$QEMU" -accel "${VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m "${VM_MEMORY:-2048}" \
	-nodefaults -display none -serial stdio -no-reboot -kernel "$KERNEL" -initrd "$WORK/initrd" \
	-append "console=ttyS0 quiet edd=off panic=-1 cgroup_no_v1=all swapaccount=1 mitigations=off" </dev/null |
	tee "$WORK/log" || CODE=$?
case $(tr -d '\r' <"$WORK/log" | grep -a '^vm: ended ' | tail -n 1) in
"vm: ended 0") exit 0 ;;
"vm: ended "*) exit 1 ;;
esac
echo "vm: the machine did not get to its end in $TIME seconds (qemu: $CODE)" >&2
exit 2
