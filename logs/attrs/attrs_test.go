package attrs

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
)

func TestAttrs(t *testing.T) {
	s := Container{Subject: logs.Subject{
		ID: "0123456789abcdef", Name: "web", ImageID: "sha256:0123456789", ImageName: "repo:tag", Command: []string{"a", "b c"},
	}}
	s.Labels, s.Env = map[string]string{"l": "1", "my.x": "2", "no": "3"}, []string{"E=4", "MY_X=5", "NO=6", "BAD"}
	for want, opts := range map[string]map[string]string{
		"":                        {},
		`{"E":"4","l":"1"}`:       {"labels": "l,none", "env": "E"},
		`{"MY_X":"5","my.x":"2"}`: {"labels-regex": "^my", "env-regex": "^MY"},
		`{"tag":"plain"}`:         {"tag": "plain"},
		`{"tag":"repo:tag/web/0123456789ab 0123456789abcdef"}`:  {"tag": "{{.ImageName}}/{{ .Name }}/{{.ID}} {{.FullID}}"},
		`{"tag":"sha256:01234 sha256:0123456789 docker a b c"}`: {"tag": "{{.ImageID}} {{.ImageFullID}} {{.DaemonName}} {{.Command}}"},
	} {
		t.Run(want, func(t *testing.T) {
			if got := string(Of(s, opts)); got != want {
				t.Errorf("%v: %s, want %s", opts, got, want)
			}
		})
	}
	for _, tag := range []string{"{{.Nothing}}", "{{json .}}", "{{.ID", "x{{"} {
		t.Run(tag, func(t *testing.T) {
			_, err := logs.Drivers{jsonfile.Driver{}}.Configure("json-file", logs.Place{}, map[string]string{"tag": tag})
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", tag, err)
			}
		})
	}
}
