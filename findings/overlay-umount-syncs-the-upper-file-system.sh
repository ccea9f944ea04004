#!/bin/sh
# Linux overlayfs, seen on 6.18 over ext4 (Documentation/filesystems/overlayfs.rst, "Volatile mount", names the option):
# unmounting a writable overlay waits until EVERY dirty page of the file system that holds the upper directory is on the
# disk, also those of files that have nothing to do with the overlay. One would guess that it writes at most its own
# upper directory. An engine that unmounts at a container's end therefore makes that end wait for what others write;
# with the option "volatile" it does not.
# In the product: the root of a container that removes itself is mounted volatile (docs/DECISIONS.md).
#
# Needs root, python3, cachestat(2) (Linux 6.5) and a temporary folder on a disk file system. Everything happens in a
# mount namespace of its own. Exit 0: the behaviour is as told; 77: it cannot be tried here; 1: it has changed.
set -eu
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
command -v python3 >/dev/null || { echo "needs python3"; exit 77; }
t=$(mktemp -d "${TMPDIR:-/var/tmp}/finding.XXXXXX")
trap 'rm -rf "$t"' EXIT
case $(stat -f -c %T "$t") in
tmpfs | overlayfs) echo "needs a temporary folder on a disk"; exit 77 ;;
esac
cat >"$t/dirty.py" <<'PY'
# prints how many pages of a file are not on the disk yet
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Range(ctypes.Structure):
    _fields_ = [("off", ctypes.c_uint64), ("len", ctypes.c_uint64)]
class Stat(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("cache", "dirty", "writeback", "evicted", "recently")]
fd, r, s = os.open(sys.argv[1], os.O_RDONLY), Range(0, 0), Stat()
if libc.syscall(451, fd, ctypes.byref(r), ctypes.byref(s), 0) != 0:
    print(os.strerror(ctypes.get_errno()), file=sys.stderr)
    sys.exit(77)
print(s.dirty + s.writeback)
PY
try() { # try NAME OPTIONS: leaves the bystander's dirty pages in $before and $after
	mkdir -p "$t/$1/lower" "$t/$1/upper" "$t/$1/work" "$t/$1/merged"
	head -c 16777216 /dev/zero >"$t/$1/bystander" # beside the overlay, in no way a part of it
	before=$(python3 "$t/dirty.py" "$t/$1/bystander") || exit 77
	(cd "$t/$1" && unshare -m --propagation private sh -ec "
		mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work$2 merged
		echo x > merged/f
		umount merged") || exit 77
	after=$(python3 "$t/dirty.py" "$t/$1/bystander")
	echo "$1: a file beside the overlay had $before dirty pages before the umount, $after after it"
}
uname -r
try plain ""
[ "$before" -gt 0 ] || { echo "the file was on the disk before: try again on a quiet machine"; exit 77; }
[ "$after" -eq 0 ] || { echo "CHANGED: the umount does not write the bystander's pages any more"; exit 1; }
try volatile ",volatile"
[ "$before" -gt 0 ] || { echo "the file was on the disk before: try again on a quiet machine"; exit 77; }
[ "$after" -gt 0 ] || { echo "CHANGED: a volatile overlay's umount writes the bystander's pages, too"; exit 1; }
