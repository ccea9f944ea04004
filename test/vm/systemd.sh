#!/bin/bash
# Runs tests as root of a virtual machine that systemd runs, by emulation: Debian 12
# (mmdebstrap: systemd, dbus, criu, podman) on Debian's kernel.
#
#   test/vm/systemd.sh v2                    cgroup v2 alone
#   test/vm/systemd.sh v1                    version 1, with systemd's empty version 2 beside it
#   VM_RUN=TestSystemd test/vm/systemd.sh v2 ./oci/ocicli   tests by name, of packages
#   VM_SMOKE=0 …                             without podman
#   VM_SCRIPT=FILE test/vm/systemd.sh v2     a shell script instead, beside the binaries in /t
#
# Exit status as test/vm/run.sh. It needs mmdebstrap, e2fsprogs and a Debian mirror at
# its first run; the root file system is kept in $VM_CACHE.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin

skip() {
	echo "vm: skipped: $*" >&2
	exit 77
}
VERSION=${1:-v2}
case $VERSION in
v2) UNIFIED=1 ;;
v1) UNIFIED=0 ;;
*) echo "usage: $0 v1|v2 [PACKAGE...]" >&2; exit 64 ;;
esac
[ $# -eq 0 ] || shift
QEMU=${VM_QEMU:-qemu-system-x86_64}
for tool in "$QEMU" busybox cpio modprobe mmdebstrap mke2fs; do
	command -v "$tool" >/dev/null || skip "no $tool"
done
KERNEL=${VM_KERNEL:-$(find /boot -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)}
[ -r "$KERNEL" ] || skip "no kernel in /boot"
RELEASE=${KERNEL##*/vmlinuz-}
[ -d "/lib/modules/$RELEASE" ] || skip "no modules of $RELEASE"

PACKAGES=("$@")
SMOKE=${VM_SMOKE:-$([ $# -eq 0 ] && echo 1 || echo 0)}
RUN=${VM_RUN:-$([ $# -eq 0 ] && echo '^(TestSystemd|TestCheckpoint)' || echo .)}
if [ ${#PACKAGES[@]} -eq 0 ]; then
	PACKAGES=(./oci/ocicli)
fi
TIME=${VM_TIME:-900}
CACHE=${VM_CACHE:-/var/tmp/gantry-vm-cache}
DEBS=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,policykit-1,criu,podman,crun,runc,uidmap,busybox-static,iproute2,iptables,kmod,procps,strace

mkdir -p "$CACHE"
BASE=$CACHE/root-$(echo "$DEBS" | md5sum | cut -c1-8).ext4
if [ ! -e "$BASE" ]; then
	[ -e "$CACHE/root.tar" ] || mmdebstrap --quiet --variant=minbase --include="$DEBS" bookworm "$CACHE/root.tar.new" || skip "no Debian mirror"
	[ ! -e "$CACHE/root.tar.new" ] || mv "$CACHE/root.tar.new" "$CACHE/root.tar"
	rm -rf "$CACHE/root" && mkdir "$CACHE/root"
	tar -C "$CACHE/root" --exclude=./dev/* -xf "$CACHE/root.tar"
	mke2fs -q -t ext4 -d "$CACHE/root" "$BASE.new" 3G
	mv "$BASE.new" "$BASE"
	rm -rf "$CACHE/root" "$CACHE/root.tar"
fi

WORK=$(mktemp -d /var/tmp/gantry-vm-XXXXXX)
trap 'rm -rf "$WORK"' EXIT
T=$WORK/t
mkdir -p "$T"
export CGO_ENABLED=0
for pkg in "${PACKAGES[@]}"; do
	at=$T/${pkg#./}
	mkdir -p "$at"
	go test -buildvcs=false -c -o "$at/pkg.test" "$pkg"
	[ ! -d "$pkg/testdata" ] || cp -r "$pkg/testdata" "$at/"
	echo "${pkg#./}" >>"$T/list"
done
printf '%s' "$RUN" >"$T/run"
cp test/vm/systemd-init "$T/init"
if [ "$SMOKE" = 1 ]; then
	cp test/vm/systemd-smoke "$T/smoke"
	go build -buildvcs=false -trimpath -ldflags '-s -w -E github.com/gantry/gantry/oci/launch/entry.Start' -o "$T/gantry-runtime" ./cmd/gantry-runtime
	go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$T/" ./cmd/docker ./cmd/dockerd
	go build -buildvcs=false -o "$WORK/mkimage" ./test/tools/mkimage
	"$WORK/mkimage" docker-archive "$T/busybox.tar" busybox=busybox:latest
fi
[ -z "${VM_SCRIPT:-}" ] || cp "$VM_SCRIPT" "$T/script"
mke2fs -q -t ext4 -d "$T" "$WORK/t.ext4" 300M >/dev/null

ROOT=$WORK/root
mkdir -p "$ROOT"/{bin,dev,proc,sys,new,lib/modules}
cp "$(command -v busybox)" "$ROOT/bin/busybox"
ln -s /bin/busybox "$ROOT/bin/sh"
for m in virtio_pci virtio_blk ext4 overlay veth bridge br_netfilter loop tun dummy fuse nf_tables nft_chain_nat nft_ct nft_nat nft_masq nft_redir nft_fib_inet \
	nft_reject_inet nft_log nft_limit nft_compat xt_addrtype xt_mark unix_diag inet_diag tcp_diag udp_diag raw_diag \
	af_packet_diag netlink_diag iptable_filter ip6table_filter nf_conntrack_netlink; do
	modprobe -S "$RELEASE" --show-depends "$m" 2>/dev/null || true
done | awk '$1 == "insmod" {print $2}' | awk '!seen[$0]++' >"$WORK/modules"
n=0
while read -r ko; do
	n=$((n + 1))
	cp "$(readlink -f "$ko")" "$ROOT/lib/modules/$(printf %03d $n)-$(basename "$ko")"
done <"$WORK/modules"
cat >"$ROOT/init" <<'I'
#!/bin/sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
for m in /lib/modules/*; do insmod "$m" || echo "vm: cannot load $m"; done
mount -t ext4 /dev/vda /new && mkdir -p /new/t && mount -t ext4 /dev/vdb /new/t || echo "vm: no disks"
cat >/new/etc/systemd/system/gantry-test.service <<S
[Unit]
After=multi-user.target dbus.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/bin/sh /t/init
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
Delegate=no
S
mkdir -p /new/etc/systemd/system/default.target.wants
ln -sf ../gantry-test.service /new/etc/systemd/system/default.target.wants/gantry-test.service
for u in serial-getty@ttyS0.service getty@tty1.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	systemd-networkd-wait-online.service podman.service podman.socket podman-restart.service podman-auto-update.timer e2scrub_reap.service; do
	ln -sf /dev/null "/new/etc/systemd/system/$u"
done
umount /dev
exec switch_root /new /sbin/init
I
chmod +x "$ROOT/init"
(cd "$ROOT" && find . -print0 | cpio --quiet -0 -o -H newc | gzip -1) >"$WORK/initrd"
echo "vm: $RELEASE, systemd, cgroup $VERSION, ${PACKAGES[*]}" >&2

CODE=0
timeout --foreground "$TIME" "$QEMU" -accel "${VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m "${VM_MEMORY:-2048}" \
	-nodefaults -display none -serial stdio -no-reboot -kernel "$KERNEL" -initrd "$WORK/initrd" \
	-drive "file=$BASE,format=raw,if=virtio,snapshot=on" -drive "file=$WORK/t.ext4,format=raw,if=virtio,snapshot=on" \
	-append "console=ttyS0 quiet edd=off panic=-1 mitigations=off systemd.unified_cgroup_hierarchy=$UNIFIED systemd.show_status=0 rd.udev.log_level=3 swapaccount=1" </dev/null |
	tee "$WORK/log" || CODE=$?
case $(tr -d '\r' <"$WORK/log" | grep -a '^vm: ended ' | tail -n 1) in
"vm: ended 0") exit 0 ;;
"vm: ended "*) exit 1 ;;
esac
echo "vm: the machine did not get to its end in $TIME seconds (qemu: $CODE)" >&2
exit 2
