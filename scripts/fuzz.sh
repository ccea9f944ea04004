#!/bin/bash
# Runs every fuzz target of the module, one after the other, each for $FUZZTIME. When Go's
# fuzzer meets that deadline in the middle of an input it ends with "context deadline
# exceeded" and status 1: no finding, as a finding comes with the input that it wrote.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}" "${FUZZTIME:=10s}"
found=0 failed=0 late=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file _ target; do
	found=$((found + 1))
	pkg=./$(dirname "$file")
	echo "== $pkg $target"
	if ! "$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -parallel 2 "$pkg" >"$log" 2>&1; then
		if grep -q '^ *context deadline exceeded$' "$log" && ! grep -qE 'Failing input written|testing seed corpus|panic:' "$log"; then
			echo "   its time ended within an input: no finding"
			late=$((late + 1))
		else
			failed=$((failed + 1))
		fi
	fi
	cat "$log"
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -Hon '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$found fuzz targets, $failed failed ($late ended within an input)"
[ "$found" -gt 0 ] && [ "$failed" -eq 0 ]
