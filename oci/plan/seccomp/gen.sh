#!/bin/sh
# Regenerates syscalls.tsv (name, amd64, 386, arm64, arm) from golang.org/x/sys/unix.
# Usage: sh gen.sh, in this directory.
set -eu
d=$(go list -m -f '{{.Dir}}' golang.org/x/sys)/unix
for a in amd64 386 arm64 arm; do
	sed -n 's/^\tSYS_\([A-Z0-9_]*\) *= \([0-9]*\)$/\1 \2/p' "$d/zsysnum_linux_$a.go" | tr 'A-Z' 'a-z' |
		sed "s/^/$a /; s/^arm64 fstatat /arm64 newfstatat /"
done | {
	cat
	# The private calls of 32-bit ARM (arch/arm/include/uapi/asm/unistd.h).
	printf 'arm breakpoint 983041\narm cacheflush 983042\narm usr26 983043\narm usr32 983044\narm set_tls 983045\n'
} | awk '{v[$2, $1] = $3; n[$2] = 1}
	function g(k, a) { return (k, a) in v ? v[k, a] : "-" }
	END {for (k in n) printf "%s\t%s\t%s\t%s\t%s\n", k, g(k, "amd64"), g(k, "386"), g(k, "arm64"), g(k, "arm")}' |
	LC_ALL=C sort >syscalls.tsv
