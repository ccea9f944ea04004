#!/bin/bash
# Reads the output of `go build -v`, passes on what is no package's name, and says every
# few seconds how many packages were compiled.
n=0 last=$SECONDS
while IFS= read -r line; do
	case $line in
	*[!a-zA-Z0-9./_~-]*) printf '%s\n' "$line" ;;
	*) n=$((n + 1)) ;;
	esac
	if [ $((SECONDS - last)) -ge 5 ]; then
		last=$SECONDS
		echo "  $n packages compiled"
	fi
done
