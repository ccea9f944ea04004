package volume_test

import (
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

func TestVolume(t *testing.T) {
	clitest.Golden(t, "volume.golden", append(clitest.Lines(`
volume
volume ls
volume list
volume ls -q
volume ls -f dangling=true -f label=a=b
volume ls -f bad
volume ls --format json
volume ls --format table
volume ls --format 'table {{.Name}}\t{{.Size}}\t{{.Links}}'
volume ls --format 'table {{.Name}}' -q
volume ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Labels}} {{.Label "a"}} {{.Size}} {{.Links}}'
volume ls --format '{{.Group}} {{.Availability}} {{.Status}}'
volume ls --format {{.Nope}}
volume ls --format {{
volume ls extra
volume create
volume create v
volume create -d nfs -o a=b -o c --label x=y --label z v
volume create --label =y v
volume create a b
volume inspect v
volume inspect v w
volume inspect -f '{{.Name}} {{.Driver}}' v w
volume inspect -f json v
volume inspect none1
volume inspect none1 v
volume inspect
volume rm v
volume rm v w
volume rm -f v
volume remove v
volume rm none1
volume rm v none1 w none2
volume rm
volume prune -f
volume prune -af
volume prune -f --filter label=a
volume prune extra
volume nosuch
`),
		clitest.Line{Args: "volume ls", Name: "none", Engine: func(e *clitest.Engine) { e.Answer("GET /volumes", 200, `{"Volumes":null,"Warnings":null}`) }},
		clitest.Line{Args: "volume ls", Name: "volumesFormat", Config: `{"volumesFormat":"{{.Name}}!"}`},
		clitest.Line{Args: "volume ls -q", Name: "volumesFormat", Config: `{"volumesFormat":"{{.Name}}!"}`},
		clitest.Line{Args: "volume ls", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("GET /volumes", 500, "it broke") }},
		clitest.Line{Args: "volume create v", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("POST /volumes/create", 400, "create v: bad name") }},
		clitest.Line{Args: "volume rm v", Name: "in use", Engine: func(e *clitest.Engine) {
			e.Answer("DELETE /volumes/v", 409, "remove v: volume is in use - [c1]")
		}},
		clitest.Line{Args: "volume prune", Name: "yes", Stdin: "y\n"},
		clitest.Line{Args: "volume prune", Name: "no", Stdin: "n\n"},
		clitest.Line{Args: "volume prune -a", Name: "yes", Stdin: "y\n"},
		clitest.Line{Args: "volume prune -f", Name: "nothing", Engine: func(e *clitest.Engine) {
			e.Answer("POST /volumes/prune", 200, `{"VolumesDeleted":null,"SpaceReclaimed":0}`)
		}},
	))
}
