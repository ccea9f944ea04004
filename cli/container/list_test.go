package container_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/cli/clitest"
)

// containers has ages in it, so that CREATED reads the same every day.
func containers(e *clitest.Engine) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	e.Answer("GET /containers/json", 200, fmt.Sprintf(`[
{"Id":"1111111111112222222222223333333333334444444444445555555555556666","Names":["/web","/db/alias"],"Image":"nginx:1.27","ImageID":"sha256:aa",
 "Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":%d,
 "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
  {"PrivatePort":443,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":90,"PublicPort":90,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":91,"PublicPort":91,"Type":"tcp"},
  {"PrivatePort":53,"Type":"udp"},{"PrivatePort":54,"Type":"udp"},{"PrivatePort":56,"Type":"udp"}],
 "Labels":{"com.example.tier-name":"front","b":"2"},"State":"running","Status":"Up 2 hours","SizeRw":1095,"SizeRootFs":187654321,
 "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"net2":{},"bridge":{}}},
 "Mounts":[{"Type":"volume","Name":"a-volume-with-a-long-name","Driver":"local","Destination":"/d"},{"Type":"bind","Source":"/srv","Destination":"/s"}]},
{"Id":"aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff","Names":["/old_cat"],"Image":"sha256:ccccccccccccdddd","ImageID":"sha256:ccccccccccccdddd",
 "Command":"sh","Created":%d,"Ports":[],"Labels":{},"State":"exited","Status":"Exited (0) 3 weeks ago","SizeRw":0,
 "HostConfig":{"NetworkMode":"host"},"NetworkSettings":{"Networks":{"host":{}}},"Mounts":[]},
{"Id":"bbbb","Names":["/digest"],"Image":"reg.example:5000/a:1@sha256:0123456789012345678901234567890123456789012345678901234567890123","ImageID":"sha256:dd",
 "Command":"日本語の長いコマンドライン引数","Created":%d,"Ports":[],"State":"created","Status":"Created","HostConfig":{},"NetworkSettings":null,"Mounts":null},
{"Id":"cccc","Names":["/noimage"],"Image":"","ImageID":"sha256:ee","Command":"","Created":%d,"Ports":null,"State":"paused","Status":"Up 1 second (Paused)","HostConfig":{},"NetworkSettings":null,"Mounts":null}]`,
		ago(3*time.Hour), ago(21*24*time.Hour), ago(90*time.Second), ago(400*24*time.Hour)))
}

func TestList(t *testing.T) {
	lines := clitest.Lines(`
ps
ps -a
ps -q
ps -aq --no-trunc
ps --no-trunc
ps -s
ps --size=false --format {{.ID}}:{{.Size}}
ps -l
ps -n 3
ps -n 3 -l
container ls
container list
container ps
ps -f status=running -f name=web -f name=db -f label=a=b
ps -f bad
ps -f =x
ps --format table
ps --format 'table {{.Names}}\t{{.Image}}\t{{.Ports}}'
ps --format 'table {{.ID}}\t{{.RunningFor}}\t{{.Status}}' -q
ps --format {{.ID}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Status}}
ps --format {{.Names}}|{{.Labels}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}
ps --no-trunc --format {{.Names}}|{{.Image}}|{{.Mounts}}
ps --format '{{.Label "b"}}|{{.Label "com.example.tier-name"}}|{{.Label "none"}}'
ps --format 'table {{.Label "com.example.tier-name"}}\t{{.Names}}'
ps --format '{{json .Names}} {{upper .State}} {{lower .Image}} {{title .State}}'
ps --format '{{pad .State 2 3}}| {{truncate .Image 3}} {{join (split .Names "e") "-"}}'
ps --format {{.Nope}}
ps --format {{
ps --format {{.ID
ps extra
ps --nosuch
ps -n x
`)
	for i := range lines {
		lines[i].Engine = containers
	}
	none := func(e *clitest.Engine) { e.Answer("GET /containers/json", 200, "[]") }
	lines = append(lines,
		clitest.Line{Args: "ps", Name: "none", Engine: none},
		clitest.Line{Args: "ps -q", Name: "none", Engine: none},
		clitest.Line{Args: "ps --format json", Name: "none", Engine: none},
		clitest.Line{Args: "ps", Name: "psFormat", Engine: containers, Config: `{"psFormat":"table {{.Names}}\t{{.Size}}"}`},
		clitest.Line{Args: "ps -q", Name: "psFormat", Engine: containers, Config: `{"psFormat":"table {{.Names}}"}`},
		clitest.Line{Args: "ps --format {{.ID}}", Name: "psFormat", Engine: containers, Config: `{"psFormat":"table {{.Names}}"}`},
		clitest.Line{Args: "ps", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("GET /containers/json", 500, "it broke") }},
		clitest.Line{Args: "ps", Name: "no daemon", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}},
	)
	clitest.Golden(t, "list.golden", lines)
}

// Every field of a row is in --format json, under its template name, as a string.
func TestListJSON(t *testing.T) {
	o := clitest.Line{Args: "ps --format json", Engine: containers}.Run(t)
	if o.Code != 0 || o.Err != "" {
		t.Fatalf("exit %d: %s", o.Code, o.Err)
	}
	lines := strings.Split(strings.TrimSpace(o.Out), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines for 4 containers", len(lines))
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	created, _ := got["CreatedAt"].(string)
	if _, err := time.Parse("2006-01-02 15:04:05 -0700 MST", created); err != nil {
		t.Error(err)
	}
	delete(got, "CreatedAt")
	want := map[string]any{
		"Command": `"/docker-entrypoint.…"`, "ID": "111111111111", "Image": "nginx:1.27",
		"Labels": "b=2,com.example.tier-name=front", "LocalVolumes": "1", "Mounts": "a-volume-with-…,/srv", "Names": "web",
		"Networks": "bridge,net2", "Platform": nil, "RunningFor": "3 hours ago", "Size": "1.09kB (virtual 188MB)",
		"Ports": "53-54/udp, 56/udp, 0.0.0.0:90-91->90-91/tcp, 443/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
		"State": "running", "Status": "Up 2 hours",
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Errorf("%s is %q, want %q", k, got[k], want[k])
		}
	}
	if len(got) != len(want) {
		t.Errorf("has the fields %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}
