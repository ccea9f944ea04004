package logs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/gantry/gantry/logs/none"
)

func TestDrivers(t *testing.T) {
	drivers := logs.Drivers{none.Driver{}, local.Driver{}, jsonfile.Driver{}}
	if got := strings.Join(drivers.Names(), " "); got != "json-file local" {
		t.Errorf("names: %s", got)
	}
	place := logs.Place{Dir: "/d", ID: "i"}
	type opts = map[string]string
	for _, c := range []struct {
		name string
		opts opts
		want logs.Config
	}{
		{"json-file", nil, logs.Config{Driver: "json-file", Path: "/d/i-json.log", MaxSize: 10 << 20, MaxFiles: 3}},
		{"json-file", opts{"max-size": "-1", "max-file": "7", "compress": "true"}, logs.Config{Driver: "json-file", Path: "/d/i-json.log", MaxSize: -1, MaxFiles: 7, Compress: true}},
		{"json-file", opts{"mode": "non-blocking", "max-buffer-size": "4m"}, logs.Config{Driver: "json-file", Path: "/d/i-json.log", MaxSize: 10 << 20, MaxFiles: 3, Buffer: 4 << 20}},
		{"json-file", opts{"mode": "non-blocking"}, logs.Config{Driver: "json-file", Path: "/d/i-json.log", MaxSize: 10 << 20, MaxFiles: 3, Buffer: 1 << 20}},
		{"local", opts{"mode": "blocking", "max-size": "1m"}, logs.Config{Driver: "local", Path: "/d/local-logs/container.log", MaxSize: 1e6, MaxFiles: 5, Compress: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := drivers.Configure(c.name, place, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got.Driver != c.want.Driver || got.Path != c.want.Path || got.MaxSize != c.want.MaxSize || got.MaxFiles != c.want.MaxFiles ||
				got.Compress != c.want.Compress || got.Buffer != c.want.Buffer {
				t.Errorf("%v: %+v, want %+v", c.opts, got, c.want)
			}
		})
	}
	for _, c := range []struct {
		name  string
		opts  opts
		class error
		text  string
	}{
		{"paper", nil, errdefs.ErrInvalidArgument, `error looking up logging plugin paper: plugin "paper" not found`},
		{"syslog", nil, errdefs.ErrNotImplemented, "the log driver syslog is not built yet"},
		{"json-file", opts{"x": "y"}, errdefs.ErrInvalidArgument, "unknown log opt 'x' for json-file log driver"},
		{"local", opts{"x": "y"}, errdefs.ErrInvalidArgument, "unknown log opt 'x' for log driver local"},
		{"json-file", opts{"mode": "y"}, errdefs.ErrInvalidArgument, "logger: logging mode not supported: y"},
		{"json-file", opts{"max-buffer-size": "1m"}, errdefs.ErrInvalidArgument, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"json-file", opts{"mode": "non-blocking", "max-buffer-size": "y"}, errdefs.ErrInvalidArgument, "error parsing option max-buffer-size: invalid size: 'y'"},
		{"json-file", opts{"max-size": "0"}, errdefs.ErrInvalidArgument, "invalid value for max-size: 0"},
		{"json-file", opts{"max-file": "0"}, errdefs.ErrInvalidArgument, "max-file cannot be less than 1"},
		{"json-file", opts{"compress": "y"}, errdefs.ErrInvalidArgument, "invalid value for compress: y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := drivers.Configure(c.name, place, c.opts); !errors.Is(err, c.class) || err.Error() != c.text {
				t.Errorf("%s %v: %v, want %s", c.name, c.opts, err, c.text)
			}
		})
	}
	if c, err := drivers.Configure("none", place, opts{"x": "y"}); c != nil || err != nil {
		t.Errorf("none: %+v %v", c, err)
	}
}

// A Config without a driver is from a daemon that knew json-file alone.
func TestOpenWriterOfOldConfig(t *testing.T) {
	place := logs.Place{Dir: t.TempDir(), ID: "i"}
	w, err := logs.Drivers{jsonfile.Driver{}}.OpenWriter(&logs.Config{Path: jsonfile.Driver{}.Path(place), Buffer: 10}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestAt: a log goes on in the format in which it has begun.
func TestAt(t *testing.T) {
	drivers := logs.Drivers{none.Driver{}, local.Driver{}, jsonfile.Driver{}}
	for _, c := range []struct {
		title, name string
		files       []string
		want        string
	}{
		{"new", "local", nil, "local"},
		{"of this engine", "local", []string{"local-logs/container.log"}, "local"},
		{"of an earlier engine", "local", []string{"i-json.log"}, "json-file"},
		{"both", "local", []string{"i-json.log", "local-logs/container.log"}, "local"},
		{"json-file", "json-file", []string{"local-logs/container.log"}, "json-file"},
		{"none", "none", []string{"i-json.log"}, "none"},
	} {
		t.Run(c.title, func(t *testing.T) {
			p := logs.Place{Dir: t.TempDir(), ID: "i"}
			for _, f := range c.files {
				path := filepath.Join(p.Dir, f)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			drv, err := drivers.At(c.name, p)
			if err != nil || drv.Describe().Name != c.want {
				t.Fatalf("%v %v", drv, err)
			}
			cfg, err := drivers.Configure(c.name, p, map[string]string{"max-size": "1m"})
			if err != nil || cfg != nil && cfg.Driver != c.want || cfg == nil && c.want != "none" {
				t.Errorf("%+v %v", cfg, err)
			}
			if cfg != nil && c.want == "local" && (cfg.Plain == nil || cfg.Plain.Driver != "json-file" || cfg.Plain.MaxSize != 1e6 || cfg.Plain.Path != p.Dir+"/i-json.log") {
				t.Errorf("plain: %+v", cfg.Plain)
			}
		})
	}
}
