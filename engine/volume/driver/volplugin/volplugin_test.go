package volplugin

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/plugin/plugintest"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/engine/volume/driver/drivertest"
)

func source(plugins map[string]http.Handler) Source {
	return Source{plugintest.Source(plugins)}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) driver.Driver {
		d, err := source(map[string]http.Handler{"p": drivertest.NewPlugin(t.TempDir())}).Find(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestFind(t *testing.T) {
	s := source(map[string]http.Handler{"vol": drivertest.NewPlugin(t.TempDir()), "net": plugintest.New("NetworkDriver")})
	for name, want := range map[string]string{
		"nobody": `error looking up volume plugin nobody: plugin "nobody" not found`,
		"net":    `error looking up volume plugin net: plugin "net" does not implement "VolumeDriver"`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Find(t.Context(), name); !errdefs.IsNotFound(err) || err.Error() != want {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if got := strings.Join(s.Names(), " "); got != "net vol" {
		t.Errorf("names: %s", got)
	}
	d, err := s.Find(t.Context(), "vol")
	if err != nil {
		t.Fatal(err)
	}
	if desc := d.Describe(t.Context()); desc.Scope != driver.ScopeGlobal || !desc.Mounts || desc.OwnsData {
		t.Errorf("%+v", desc)
	}
}

// fixed answers every method but Activate alike.
func fixed(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "Plugin.Activate") {
			io.WriteString(w, `{"Implements":["VolumeDriver"]}`)
			return
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// What plugins get wrong, and how it is told.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		mount      string // the error of Mount
		get        string
		listed     int
	}{
		{"by the field alone", `{"Err":"boom"}`, 200, "boom", "no such volume", 0},
		{"by the status too", `{"Err":"boom"}`, 500, "VolumeDriver.Mount: boom", "no such volume", 0},
		{"no mount point", `{}`, 200, "VolumeDriver.Mount: the plugin's mount point is no absolute path: ", "no such volume", 0},
		{"a relative mount point", `{"Mountpoint":"a/b"}`, 200, "VolumeDriver.Mount: the plugin's mount point is no absolute path: a/b", "no such volume", 0},
		{"another volume", `{"Mountpoint":"/a","Volume":{"Name":"w"},"Volumes":[null,{},{"Name":"w"}]}`, 200, "", "no such volume", 1},
		{"a volume", `{"Mountpoint":"/a","Volume":{"Name":"v","CreatedAt":"yesterday"},"Volumes":[{"Name":"v","Mountpoint":"../x","Status":{"a":1}}]}`, 200, "", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := source(map[string]http.Handler{"p": fixed(c.status, c.body)}).Find(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			text := func(err error) string {
				if err == nil {
					return ""
				}
				return err.Error()
			}
			if _, err := d.Mount(t.Context(), "v", "id"); text(err) != c.mount {
				t.Errorf("mount: %v", err)
			}
			if v, err := d.Get(t.Context(), "v"); text(err) != c.get || v.Path != "" || !v.Created.IsZero() {
				t.Errorf("get: %+v %v", v, err)
			}
			if l, _ := d.List(t.Context()); len(l) != c.listed || len(l) > 0 && (l[0].Path != "" || l[0].Status != nil) {
				t.Errorf("list: %+v", l)
			}
		})
	}
}

// FuzzAnswers: whatever a plugin answers, paths are absolute or none, and names are what was asked.
func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"Mountpoint":"/a/../b","Volume":{"Name":"v","Mountpoint":"x","CreatedAt":"2026-01-01T00:00:00Z","Status":{}},"Volumes":[{"Name":"v"}]}`))
	f.Add(500, []byte(`{"Err":"boom"}`))
	f.Add(200, []byte(`{"Volumes":[null]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		d, err := source(map[string]http.Handler{"p": fixed(status, string(body))}).Find(t.Context(), "p")
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.Mount(t.Context(), "v", "id")
		if (err == nil) != strings.HasPrefix(p, "/") {
			t.Errorf("mounted at %q, %v", p, err)
		}
		v, err := d.Get(t.Context(), "v")
		if err == nil && v.Name != "v" || v.Path != "" && v.Path[0] != '/' {
			t.Errorf("%+v %v", v, err)
		}
		l, _ := d.List(t.Context())
		for _, v := range l {
			if v.Name == "" || v.Path != "" && v.Path[0] != '/' {
				t.Errorf("%+v", v)
			}
		}
		if v.Status != nil {
			if _, err := json.Marshal(v.Status); err != nil {
				t.Error(err)
			}
		}
	})
}
