#!/bin/bash
# Runs every fuzz target of the module, one after the other, each for $FUZZTIME.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}" "${FUZZTIME:=10s}"
found=0 failed=0
while IFS=: read -r file _ target; do
	found=$((found + 1))
	pkg=./$(dirname "$file")
	echo "== $pkg $target"
	"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -parallel 2 "$pkg" || failed=$((failed + 1))
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | xargs grep -Hon '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //')
echo "$found fuzz targets, $failed failed"
[ "$found" -gt 0 ] && [ "$failed" -eq 0 ]
