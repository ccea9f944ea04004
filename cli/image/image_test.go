package image_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry/gantry/cli/clitest"
)

const (
	id1    = "sha256:1111111111112222222222223333333333334444444444445555555555556666"
	digest = "sha256:aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff"
)

func images(e *clitest.Engine) {
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	e.Answer("GET /images/json", 200, fmt.Sprintf(`[
{"Containers":2,"Created":%d,"Id":"`+id1+`","Labels":null,"ParentId":"","RepoDigests":["nginx@`+digest+`"],"RepoTags":["nginx:1.27"],"SharedSize":1000,"Size":187654321},
{"Containers":-1,"Created":%d,"Id":"sha256:2222222222222222","RepoDigests":["localhost:5000/a/b@`+digest+`"],"RepoTags":["localhost:5000/a/b:x"],"SharedSize":-1,"Size":4261574},
{"Containers":-1,"Created":%d,"Id":"sha256:3333333333333333","Labels":{"a":"b"},"RepoDigests":[],"RepoTags":[],"SharedSize":-1,"Size":0},
{"Containers":-1,"Created":-62135596800,"Id":"sha256:4444444444444444","RepoDigests":["only@`+digest+`"],"RepoTags":[],"SharedSize":-1,"Size":1}]`,
		ago(49*time.Hour), ago(10*time.Minute), ago(-time.Second)))
	e.Answer("GET /images/nginx/history", 200, fmt.Sprintf(`[
{"Comment":"buildkit.dockerfile.v0","Created":%d,"CreatedBy":"CMD [\"nginx\" \"-g\" \"daemon\toff;\"] and quite some more of it","Id":"`+id1+`","Size":0,"Tags":["nginx:1.27"]},
{"Comment":"","Created":%d,"CreatedBy":"/bin/sh -c #(nop) ADD file","Id":"<missing>","Size":77800000,"Tags":null}]`, ago(26*time.Hour), ago(72*time.Hour)))
}

func TestLists(t *testing.T) {
	lines := clitest.Lines(`
images
images -q
images -q --no-trunc
images -a
images --no-trunc
images --digests
images --digests -q
images nginx
images nginx -f dangling=true -f label=a
images -f bad
images a b
images --format table
images --format 'table {{.Repository}}\t{{.Digest}}'
images --format 'table {{.ID}}\t{{.CreatedSince}}' -q
images --format {{.ID}}|{{.Repository}}|{{.Tag}}|{{.Digest}}|{{.CreatedSince}}
images --format {{.Size}}|{{.VirtualSize}}|{{.SharedSize}}|{{.UniqueSize}}|{{.Containers}}
images --format {{.Nope}}
images --format {{
image ls
image list
history nginx
history --no-trunc nginx
history -q nginx
history -q --no-trunc nginx
history --format {{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}|{{.CreatedSince}} nginx
history --format 'table {{.CreatedBy}}\t{{.Size}}' nginx
history -H=false --format {{.Size}} nginx
history --platform linux/arm64 nginx
history --platform b@d nginx
history none1
history
image history -q nginx
`)
	for i := range lines {
		lines[i].Engine = images
	}
	none := func(e *clitest.Engine) { e.Answer("GET /images/json", 200, "[]") }
	clitest.Golden(t, "lists.golden", append(lines,
		clitest.Line{Args: "images", Name: "none", Engine: none},
		clitest.Line{Args: "images -q", Name: "none", Engine: none},
		clitest.Line{Args: "images", Name: "imagesFormat", Engine: images, Config: `{"imagesFormat":"{{.ID}} {{.Tag}}"}`},
		clitest.Line{Args: "images -q", Name: "imagesFormat", Engine: images, Config: `{"imagesFormat":"{{.Tag}}"}`},
		clitest.Line{Args: "images --format {{.Size}}", Name: "imagesFormat", Engine: images, Config: `{"imagesFormat":"{{.Tag}}"}`},
		clitest.Line{Args: "images", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("GET /images/json", 500, "it broke") }},
	))
}

func TestVerbs(t *testing.T) {
	auths := `{"auths":{"reg.example:5000":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"eDp5"}}}`
	lines := clitest.Lines(`
tag a b
tag a
tag none1 b
image tag a b
rmi a
rmi a b
rmi -f a
rmi --no-prune a
rmi --platform linux/amd64 a
rmi --platform b@d a
rmi none1
rmi -f none1
rmi a none1 b
rmi -f a none1
rmi
image rm a
image remove a
pull missing
pull -q missing
pull missing:tag
pull missing@sha256:0123456789012345678901234567890123456789012345678901234567890123
pull -a missing
pull -a missing:tag
pull gone
pull broken
pull -q broken
pull Upper
pull --platform linux/arm64 missing
pull --platform b@d missing
pull --disable-content-trust missing
pull
image pull -q missing
push a
push -q a
push a:tag
push -a a
push -a a:tag
push --platform linux/amd64 a
push --platform b@d a
push Upper
push
image push -q a
save a
save a b
save -o out.tar a
save -o nodir/out.tar a
save -o . a
save --platform linux/arm64 a
save --platform linux/arm64,linux/amd64 --platform linux/arm/v7 a
save --platform b@d a
save none1
save
image save a
load -i archive.tar
load -q -i archive.tar
load -i none.tar
load --platform linux/arm64 -i archive.tar
load --platform linux/arm64,linux/amd64 -i archive.tar
load --platform b@d -i archive.tar
load extra
image load -i archive.tar
image inspect nginx
image inspect nginx b
image inspect -f {{.Os}}/{{.Architecture}} nginx
image inspect -f {{.Nope}} nginx
image inspect -f json nginx
image inspect --platform linux/amd64 nginx
image inspect --platform b@d nginx
image inspect none1
image inspect none1 nginx
image inspect
image prune -f
image prune -af
image prune -af --filter until=24h --filter label=x
image nosuch
`)
	for i := range lines {
		lines[i].Files = map[string]string{"archive.tar": "TAR"}
	}
	clitest.Golden(t, "verbs.golden", append(lines,
		clitest.Line{Args: "load", Stdin: "TAR"},
		clitest.Line{Args: "image prune", Name: "yes", Stdin: "y\n"},
		clitest.Line{Args: "image prune", Name: "no", Stdin: "no\n"},
		clitest.Line{Args: "image prune -a", Name: "end of input"},
		clitest.Line{Args: "image prune -a", Name: "yes", Stdin: "Y\n"},
		clitest.Line{Args: "image prune -f", Name: "nothing", Engine: func(e *clitest.Engine) {
			e.Answer("POST /images/prune", 200, `{"ImagesDeleted":null,"SpaceReclaimed":0}`)
		}},
		clitest.Line{Args: "rmi a", Name: "conflict", Engine: func(e *clitest.Engine) {
			e.Answer("DELETE /images/a", 409, "conflict: unable to remove repository reference \"a\" (must force) - container 1 is using its referenced image 2")
		}},
		clitest.Line{Args: "rmi -f a none1", Name: "conflict", Engine: func(e *clitest.Engine) { e.Answer("DELETE /images/a", 409, "conflict") }},
		clitest.Line{Args: "pull reg.example:5000/missing", Name: "credentials", Config: auths},
		clitest.Line{Args: "pull missing", Name: "credentials", Config: auths},
		clitest.Line{Args: "pull other.example/missing", Name: "credentials", Config: auths},
		clitest.Line{Args: "push reg.example:5000/a", Name: "credentials", Config: auths},
		clitest.Line{Args: "pull missing", Name: "DOCKER_DEFAULT_PLATFORM", Env: []string{"DOCKER_DEFAULT_PLATFORM=linux/arm64"}},
	))
}

// An archive is at its place whole, or what was there before is.
func TestSaveToFile(t *testing.T) {
	whole := func(e *clitest.Engine) { e.Answer("GET /images/get", 200, "TAR") }
	for _, c := range []struct {
		name, args, want string
		code             int
		engine           func(*clitest.Engine)
	}{
		{"new", "save -o new.tar a", "TAR", 0, whole},
		{"replaces", "save -o old.tar a", "TAR", 0, whole},
		{"an error leaves the old one", "save -o old.tar none1", "old", 1, func(e *clitest.Engine) { e.Answer("GET /images/get", 404, "No such image: none1") }},
		{"so does an archive that breaks off", "save -o old.tar a", "old", 1, func(e *clitest.Engine) { e.Cut("GET /images/get", "TA") }},
		{"which is not there where none was", "save -o new.tar a", "", 1, func(e *clitest.Engine) { e.Cut("GET /images/get", "TA") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var file string
			o := clitest.Line{
				Args: c.args, Files: map[string]string{"old.tar": "old"},
				Engine: c.engine,
				After: func(dir string) {
					b, _ := os.ReadFile(filepath.Join(dir, clitest.Words(c.args)[2]))
					file = string(b)
					if left, _ := filepath.Glob(filepath.Join(dir, ".docker_temp_*")); len(left) > 0 {
						t.Errorf("left behind: %q", left)
					}
				},
			}
			if got := o.Run(t); got.Code != c.code {
				t.Errorf("exit %d, want %d: %s", got.Code, c.code, got.Err)
			}
			if file != c.want {
				t.Errorf("the file has %q, want %q", file, c.want)
			}
		})
	}
}
