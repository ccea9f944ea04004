package contexts_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

// files are two contexts as Docker keeps them, one of them with TLS material.
func files() map[string]string {
	dir := func(kind, name string) string {
		sum := sha256.Sum256([]byte(name))
		return "config/contexts/" + kind + "/" + hex.EncodeToString(sum[:])
	}
	return map[string]string{
		dir("meta", "remote") + "/meta.json": `{"Name":"remote","Metadata":{"Description":"a machine far away, whose description is longer than sixty columns"},"Endpoints":{"docker":{"Host":"ssh://user@far.example","SkipTLSVerify":false}}}`,
		dir("meta", "tls") + "/meta.json":    `{"Name":"tls","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.0.0.1:2376","SkipTLSVerify":true}}}`,
		dir("tls", "tls") + "/docker/ca.pem": "x",
	}
}

func TestContexts(t *testing.T) {
	lines := clitest.Lines(`
context
context show
context ls
context list
context ls -q
context ls --format json
context ls --format table
context ls --format 'table {{.Name}}\t{{.Current}}'
context ls --format '{{.Name}} {{.Current}} {{.DockerEndpoint}} {{.Error}}|'
context ls --format {{.Nope}}
context ls extra
context inspect
context inspect default
context inspect remote
context inspect tls
context inspect remote tls
context inspect -f '{{.Name}} {{.Endpoints.docker.Host}}' remote default
context inspect nosuch
context inspect nosuch remote
context use remote
context use nosuch
context use default
context use
context show extra
context nosuch
`)
	for i := range lines {
		lines[i].Files = files()
		lines[i].Env = []string{"DOCKER_HOST=unix:///run/of/the/daemon.sock"} // as wide on every machine
	}
	noHost := []string{"DOCKER_HOST="}
	current := `{"currentContext":"remote"}`
	clitest.Golden(t, "contexts.golden", append(lines,
		clitest.Line{Args: "context show", Name: "currentContext", Files: files(), Env: noHost, Config: current},
		clitest.Line{Args: "context ls", Name: "currentContext", Files: files(), Env: noHost, Config: current},
		clitest.Line{Args: "context inspect -f {{.Name}}", Name: "currentContext", Files: files(), Env: noHost, Config: current},
		clitest.Line{Args: "context show", Name: "DOCKER_CONTEXT", Files: files(), Env: []string{"DOCKER_HOST=", "DOCKER_CONTEXT=tls"}, Config: current},
		clitest.Line{Args: "-c tls context show", Files: files(), Env: noHost, Config: current},
		clitest.Line{Args: "context ls", Name: "current is gone", Env: noHost, Config: `{"currentContext":"gone"}`},
		clitest.Line{Args: "ps", Name: "current is gone", Env: noHost, Config: `{"currentContext":"gone"}`},
		clitest.Line{Args: "-c nosuch ps", Env: noHost},
		clitest.Line{Args: "context use default", Name: "currentContext", Env: noHost, Config: current},
	))
}

// What `context use` leaves in config.json: the name, or nothing for the default.
func TestUseIsKept(t *testing.T) {
	for _, c := range []struct{ name, args, config, want string }{
		{"chosen", "context use remote", `{"psFormat":"x"}`, "{\n\t\"auths\": {},\n\t\"currentContext\": \"remote\",\n\t\"psFormat\": \"x\"\n}"},
		{"default", "context use default", `{"currentContext":"remote"}`, "{\n\t\"auths\": {}\n}"},
		{"unknown", "context use nosuch", `{"currentContext":"remote"}`, `{"currentContext":"remote"}`},
		{"the same", "context use remote", `{"currentContext":"remote"}`, `{"currentContext":"remote"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			clitest.Line{Args: c.args, Config: c.config, Files: files(), After: func(dir string) {
				b, err := os.ReadFile(filepath.Join(dir, "config", "config.json"))
				if err != nil {
					t.Error(err)
				}
				got = string(b)
			}}.Run(t)
			if got != c.want {
				t.Errorf("config.json is %q, want %q", got, c.want)
			}
		})
	}
}
