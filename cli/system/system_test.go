package system_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/cli/clitest"
)

func TestSystem(t *testing.T) {
	clitest.Golden(t, "system.golden", append(clitest.Lines(`
system
system nosuch
system info extra
info -f {{.ServerVersion}}
info -f '{{.Name}} {{.ClientInfo.Context}} {{.ClientInfo.Debug}} {{json .SecurityOptions}}'
info -f {{
system info -f {{.NCPU}}
version -f {{.Server.Version}}
version -f '{{.Client.Context}} {{.Server.APIVersion}} {{range .Server.Components}}{{.Name}}={{.Version}} {{end}}'
version -f {{
version extra
events
events --format json
events --format '{{.Type}}\t{{.Action}} {{.Actor.ID}} {{.Time}} {{.Status}} {{.From}} {{.Scope}}'
events --format {{json .Actor.Attributes}}
events --format '{{json .Actor.Attributes}}'
events --since 2024-12-31T23:00:00 --until 2025-01-01T00:00:00Z -f type=container -f event=start
events -f bad
events extra
system events --format {{.Action}}
inspect --type image nginx
inspect --type container c1
inspect --type network bridge
inspect --type volume v
inspect --type container none1
inspect --type bogus x
inspect --type '' x
inspect
logout
logout reg.example.com:5000
logout https://reg.example.com/v2/
logout a b
login -u u -p p
login -u u -p p reg.example.com:5000
login -u u
login
login --password-stdin
login -u u -p p --password-stdin
login a b
`),
		clitest.Line{Args: "login -u u --password-stdin", Stdin: "secret\n", Name: "one line"},
		clitest.Line{Args: "login -u u --password-stdin", Stdin: "secret", Name: "no newline"},
		clitest.Line{Args: "login -u u --password-stdin", Stdin: "", Name: "empty"},
		clitest.Line{Args: "login -u u -p p", Name: "refused", Engine: func(e *clitest.Engine) {
			e.Answer("POST /auth", 401, "Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password")
		}},
		clitest.Line{Args: "login", Name: "stored", Config: `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`},
		clitest.Line{Args: "login reg.example.com", Name: "stored", Config: `{"auths":{"reg.example.com":{"auth":"dTpw"}}}`},
		clitest.Line{Args: "version -f {{.Client.Context}}", Name: "no daemon", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}},
		clitest.Line{Args: "info -f {{.Name}}", Name: "no daemon", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}},
		clitest.Line{Args: "events", Name: "no daemon", Env: []string{"DOCKER_HOST=unix:///nonexistent/sock"}},
		clitest.Line{Args: "events", Name: "none", Engine: func(e *clitest.Engine) { e.Answer("GET /events", 200, "") }},
		clitest.Line{Args: "events", Name: "not JSON", Engine: func(e *clitest.Engine) { e.Answer("GET /events", 200, "<html>") }},
	))
}

// What has our own version in it, or lines of Docker's that we do not have.
func TestInfoAndVersion(t *testing.T) {
	for _, c := range []struct {
		name, args string
		code       int
		has        []string
	}{
		{"info", "info", 0, []string{
			"Client:\n Version: ", " Context:    default\n Debug Mode: false\n", "Server:\n Containers: 3\n  Running: 1\n  Paused: 0\n  Stopped: 2\n Images: 5\n",
			" Storage Driver: overlay2\n  Backing Filesystem: extfs\n  Supports d_type: true\n", " Plugins:\n  Volume: local\n  Network: bridge host null\n  Log: json-file none\n",
			" Swarm: inactive\n Runtimes: io.containerd.runc.v2 runc\n Default Runtime: runc\n Init Binary: docker-init\n",
			" Security Options:\n  seccomp\n   Profile: builtin\n", " Total Memory: 7.451GiB\n", " Labels:\n  a=b\n", " Insecure Registries:\n  127.0.0.0/8\n", " Live Restore Enabled: false\n",
		}},
		{"info -D", "-D info", 0, []string{" Debug Mode: true\n"}},
		{"info json", "info -f json", 0, []string{`"ServerVersion":"28.2.2"`, `"ClientInfo":{`, `"Context":"default"`}},
		{"version", "version", 0, []string{
			"Client:\n Version: ", " Context:           default\n", "Server: Fake Engine\n Engine:\n  Version:          28.2.2\n  API version:      1.50 (minimum version 1.24)\n",
			"  Built:            Fri May 30 12:07:14 2025\n  OS/Arch:          linux/amd64\n  Experimental:     false\n containerd:\n  Version:          1.7.27\n  GitCommit:        05044ec\n",
		}},
		{"version json", "version -f json", 0, []string{`"Server":{"Platform":{"Name":"Fake Engine"}`, `"ApiVersion":"1.50"`, `"MinAPIVersion":"1.24"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := clitest.Line{Args: c.args}.Run(t)
			if o.Code != c.code {
				t.Errorf("exit %d, want %d: %s", o.Code, c.code, o.Err)
			}
			for _, s := range c.has {
				if !strings.Contains(o.Out, s) {
					t.Errorf("%q is missing in:\n%s", s, o.Out)
				}
			}
		})
	}
	t.Run("warnings", func(t *testing.T) {
		if o := (clitest.Line{Args: "info"}).Run(t); o.Err != "WARNING: a warning\n" {
			t.Errorf("stderr is %q", o.Err)
		}
	})
	t.Run("no daemon", func(t *testing.T) {
		env := []string{"DOCKER_HOST=unix:///nonexistent/sock"}
		const gone = "Cannot connect to the Docker daemon at unix:///nonexistent/sock. Is the docker daemon running?\n"
		o := clitest.Line{Args: "info", Env: env}.Run(t)
		if o.Code != 1 || !strings.HasSuffix(o.Out, "\nServer:\n") || o.Err != gone+"errors pretty printing info\n" {
			t.Errorf("info: %+v", o)
		}
		o = clitest.Line{Args: "version", Env: env}.Run(t)
		if o.Code != 1 || strings.Contains(o.Out, "Server") || o.Err != gone {
			t.Errorf("version: %+v", o)
		}
	})
}

// What login and logout leave in config.json.
func TestCredentialsKept(t *testing.T) {
	for _, c := range []struct{ name, args, config, want string }{
		{"Docker Hub", "login -u u -p p", "", `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`},
		{"a registry", "login -u u -p p reg.example:5000", `{"auths":{"a":{"auth":"eDp5"}}}`, `{"auths":{"a":{"auth":"eDp5"},"reg.example:5000":{"auth":"dTpw"}}}`},
		{"by URL", "login -u u -p p https://reg.example/v2/", "", `{"auths":{"reg.example":{"auth":"dTpw"}}}`},
		{"logout", "logout reg.example", `{"auths":{"a":{"auth":"eDp5"},"reg.example":{"auth":"dTpw"}}}`, `{"auths":{"a":{"auth":"eDp5"}}}`},
		{"logout of Docker Hub", "logout", `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`, `{"auths":{}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []byte
			o := clitest.Line{Args: c.args, Config: c.config, After: func(dir string) {
				got, _ = os.ReadFile(filepath.Join(dir, "config", "config.json"))
			}}.Run(t)
			var v any
			if err := json.Unmarshal(got, &v); err != nil {
				t.Fatalf("%v: %q, %+v", err, got, o)
			}
			if b, _ := json.Marshal(v); string(b) != c.want {
				t.Errorf("config.json is %s, want %s", b, c.want)
			}
		})
	}
}

func usage() string {
	at := func(d time.Duration) any { return time.Now().Add(-d).Unix() }
	iso := func(d time.Duration) any { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	return fmt.Sprintf(`{
"Images":[{"Id":"sha256:1111111111112222222222223333333333334444444444445555555555556666","RepoTags":["nginx:1.27"],"Size":2000000,"SharedSize":0,"Containers":1,"Created":%d},
 {"Id":"sha256:2222222222222222","RepoTags":[],"Size":1000000,"SharedSize":0,"Containers":0,"Created":%d}],
"LayersSize":3000000,
"Containers":[{"Id":"c1c1c1c1c1c1c1","Image":"nginx:1.27","State":"running","Status":"Up 1 hour","SizeRw":500,"Created":%d}],
"Volumes":[{"Name":"v1","Driver":"local","UsageData":{"RefCount":1,"Size":4096}},{"Name":"v2","Driver":"local","UsageData":{"RefCount":0,"Size":1024}}],
"BuildCache":[{"ID":"ffffffffffffffff","Type":"regular","Size":700,"CreatedAt":%q,"LastUsedAt":%q,"UsageCount":3,"InUse":true,"Shared":false,"Description":"RUN x"},
 {"ID":"eeeeeeeeeeeeeeee","Type":"source.local","Size":1,"CreatedAt":%q,"UsageCount":0,"InUse":false,"Shared":true}]}`,
		at(50*time.Hour), at(30*time.Hour), at(90*time.Minute), iso(3*time.Hour), iso(10*time.Minute), iso(5*time.Hour))
}

func TestDf(t *testing.T) {
	lines := clitest.Lines(`
system df
system df -v
system df -v --format table
system df -v --format '{{range .Images}}{{.ID}} {{end}}{{range .Volumes}}{{.Name}} {{.Size}} {{end}}{{range .BuildCache}}{{.ID}} {{.InUse}} {{.Parent}} {{.Description}}{{end}}'
system df --format json
system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'
system df --format 'table {{.Type}}\t{{.Size}}'
system df --format {{.Nope}}
system df extra
`)
	for i := range lines {
		lines[i].Engine = func(e *clitest.Engine) { e.Answer("GET /system/df", 200, usage()) }
	}
	clitest.Golden(t, "df.golden", append(lines,
		clitest.Line{Args: "system df", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("GET /system/df", 500, "it broke") }},
		clitest.Line{Args: "system df", Name: "nothing", Engine: func(e *clitest.Engine) { e.Answer("GET /system/df", 200, `{}`) }},
	))
}

// Every object of -v is in its JSON.
func TestDfVerboseJSON(t *testing.T) {
	o := clitest.Line{Args: "system df -v --format json", Engine: func(e *clitest.Engine) { e.Answer("GET /system/df", 200, usage()) }}.Run(t)
	var v map[string][]map[string]any
	if err := json.Unmarshal([]byte(o.Out), &v); err != nil {
		t.Fatalf("%v: %+v", err, o)
	}
	for kind, want := range map[string][]string{
		"Images":     {"sha256:1111111111112222222222223333333333334444444444445555555555556666", "sha256:2222222222222222"},
		"Containers": {"c1c1c1c1c1c1c1"}, "Volumes": {"v1", "v2"}, "BuildCache": {"eeeeeeeeeeeeeeee", "ffffffffffffffff*"},
	} {
		t.Run(kind, func(t *testing.T) {
			var got []string
			for _, x := range v[kind] {
				id, ok := x["ID"].(string)
				if !ok {
					id, _ = x["Name"].(string)
				}
				got = append(got, id)
			}
			if !slices.Equal(got, want) {
				t.Errorf("has %q, want %q", got, want)
			}
		})
	}
}

// dial-stdio, what ssh contexts run on the far side: the daemon's socket on the standard
// streams.
func TestDialStdio(t *testing.T) {
	o := clitest.Line{
		Args:  "system dial-stdio",
		Stdin: "GET /v1.50/images/none1/json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	}.Run(t)
	if o.Code != 0 || !regexp.MustCompile(`(?s)^HTTP/1.1 404 Not Found\r\n.*No such image: none1`).MatchString(o.Out) {
		t.Errorf("%+v", o)
	}
}
