#!/bin/sh
# Docker's own command line, github.com/docker/cli v29.9.3 (cli/command/container/opts.go): `docker create --ip ADDRESS`
# with an IPv6 address sends no address at all, without an error or a warning: the container gets some other one. With an
# IPv4 address `--ip6` sends the IPv4-mapped form (::ffff:192.0.2.5) as the IPv6 address. One would guess a refusal, as other
# flags of addresses give.
# In the product: our command line passes the address on as it is written and the daemon refuses it by name; the
# end-to-end test of that (net_links) runs with our client only.
#
# Needs go, python3 and the Go module proxy; builds in a temporary folder. The engine that is asked is twenty lines of
# Python which note the request. Exit 0: the behaviour is as told; 77: it cannot be tried here; 1: it has changed.
set -eu
command -v python3 >/dev/null && command -v go >/dev/null || { echo "needs go and python3"; exit 77; }
t=$(mktemp -d "${TMPDIR:-/var/tmp}/finding.XXXXXX")
engine=
trap 'test -z "$engine" || kill "$engine"; chmod -R u+w "$t"; rm -rf "$t"' EXIT
export GOFLAGS=-mod=mod CGO_ENABLED=0 GOTOOLCHAIN=local DOCKER_CONFIG="$t/config"
dir=$(cd "$t" && go mod download -json 'github.com/docker/cli@v29.9.3+incompatible' | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p') || exit 77
cp -R "$dir" "$t/cli" && chmod -R u+w "$t/cli"
cp "$t/cli/vendor.mod" "$t/cli/go.mod" && cp "$t/cli/vendor.sum" "$t/cli/go.sum"
(cd "$t/cli" && go mod edit -replace github.com/moby/swarmkit/v2=github.com/moby/swarmkit/v2@v2.1.2) # the newest that the module proxy serves
(cd "$t/cli" && go build -ldflags '-X github.com/docker/cli/cli/version.Version=29.9.3' -o "$t/docker" ./cmd/docker) || exit 77
cat >"$t/engine.py" <<'PY'
import http.server, json, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, code, body):
        self.send_response(code)
        self.send_header("Api-Version", "1.50")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_HEAD(self): self.answer(200, b"")
    def do_GET(self): self.answer(200, b"{}")
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(sys.argv[2], "a") as f:
            endpoints = request["NetworkingConfig"]["EndpointsConfig"]
            f.write(json.dumps({name: e["IPAMConfig"] for name, e in endpoints.items()}) + "\n")
        self.answer(201, b'{"Id":"c1","Warnings":[]}')
    def log_message(self, *a): pass
class Server(socketserver.UnixStreamServer):
    def get_request(self): return self.socket.accept()[0], ("", "")
Server(sys.argv[1], Handler).serve_forever()
PY
python3 "$t/engine.py" "$t/sock" "$t/requests" & engine=$!
i=0; while [ ! -S "$t/sock" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
"$t/docker" --version
for flags in "--ip 192.0.2.5" "--ip 2001:db8::5" "--ip6 192.0.2.5" "--ip6 2001:db8::5"; do
	# shellcheck disable=SC2086
	"$t/docker" -H "unix://$t/sock" create --network n $flags image >"$t/out" 2>&1 || { echo "CHANGED: $flags: $(cat "$t/out")"; exit 1; }
	[ "$(cat "$t/out")" = c1 ] || { echo "CHANGED: $flags says: $(cat "$t/out")"; exit 1; }
	echo "$flags: $(tail -n 1 "$t/requests")"
done
cat >"$t/want" <<'TXT'
{"n": {"IPv4Address": "192.0.2.5"}}
{}
{"n": {"IPv6Address": "::ffff:192.0.2.5"}}
{"n": {"IPv6Address": "2001:db8::5"}}
TXT
cmp -s "$t/want" "$t/requests" || { echo CHANGED; diff "$t/want" "$t/requests"; exit 1; }
