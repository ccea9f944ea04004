package logs

import (
	"os"
	"slices"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/internal/errclass"
)

// Drivers is a table of drivers, found by name.
type Drivers []Driver

// defaultBuffer is how much output waits in mode=non-blocking where nothing is said, in bytes.
const defaultBuffer = 1 << 20

// Find returns the driver of a name. Errors: InvalidArgument in Docker's words for names that
// nobody knows, NotImplemented for drivers of Docker that are not built.
func (d Drivers) Find(name string) (Driver, error) {
	for _, drv := range d {
		if drv.Describe().Name == name {
			return drv, nil
		}
	}
	switch name {
	case "syslog", "journald", "gelf", "fluentd", "awslogs", "gcplogs", "splunk", "etwlogs":
		return nil, errclass.NotImplemented("the log driver %s is not built yet", name)
	}
	return nil, errclass.Invalid("error looking up logging plugin %s: plugin %q not found", name, name)
}

// At returns the driver of the log at a place, for a container whose driver is called name. A log
// goes on in the format in which it has begun: earlier engines wrote json-file for local, and
// so does a process that holds containers and is older than the daemon. Errors as Find's.
func (d Drivers) At(name string, p Place) (Driver, error) {
	drv, err := d.Find(name)
	if err != nil || drv.Describe().Discards || exists(drv.Path(p)) {
		return drv, err
	}
	if plain, err := d.Find(plainName); err == nil && exists(plain.Path(p)) {
		return plain, nil
	}
	return drv, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// plainName is the driver that every process that holds containers knows.
const plainName = "json-file"

// Names are those of the drivers that keep output, sorted, for `docker info`.
func (d Drivers) Names() []string {
	var names []string
	for _, drv := range d {
		if desc := drv.Describe(); !desc.Discards {
			names = append(names, desc.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Configure checks a container's log settings and says what is to be written for it; nil for a
// driver that discards. With a place the driver is At's. Errors as Find's, and InvalidArgument
// for options.
func (d Drivers) Configure(name string, p Place, opts map[string]string) (*Config, error) {
	drv, err := d.Find(name)
	if err == nil && p.Dir != "" {
		drv, err = d.At(name, p)
	}
	if err != nil {
		return nil, err
	}
	desc := drv.Describe()
	if desc.Discards {
		return nil, nil
	}
	buffer, err := bufferOf(opts)
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for k, v := range opts {
		if k != "mode" && k != "max-buffer-size" {
			own[k] = v
		}
	}
	c, err := drv.Configure(p, own)
	if err != nil {
		return nil, err
	}
	if _, err := ExpandTag(opts["tag"], Subject{}); err != nil {
		return nil, err
	}
	c.Driver, c.Path, c.Buffer = desc.Name, drv.Path(p), buffer
	if desc.Name != plainName {
		c.Plain = d.plain(p, own, buffer)
	}
	return c, nil
}

// plain is Config.Plain; nil where the options are not for it.
func (d Drivers) plain(p Place, opts map[string]string, buffer int64) *Config {
	drv, err := d.Find(plainName)
	if err != nil {
		return nil
	}
	c, err := drv.Configure(p, opts)
	if err != nil {
		return nil
	}
	c.Driver, c.Path, c.Buffer = plainName, drv.Path(p), buffer
	return c
}

// bufferOf reads the options that every driver takes: how much may wait before output is
// dropped, 0 in mode=blocking.
func bufferOf(opts map[string]string) (int64, error) {
	nonBlocking := false
	switch mode := opts["mode"]; mode {
	case "", "blocking":
	case "non-blocking":
		nonBlocking = true
	default:
		return 0, errclass.Invalid("logger: logging mode not supported: %s", mode)
	}
	v, given := opts["max-buffer-size"]
	if !given {
		if nonBlocking {
			return defaultBuffer, nil
		}
		return 0, nil
	}
	if !nonBlocking {
		return 0, errclass.Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	}
	n, err := units.RAMInBytes(v)
	if err != nil {
		return 0, errclass.Invalid("error parsing option max-buffer-size: %w", err)
	}
	return max(n, 1), nil
}

// OpenWriter opens the log that a Config describes for appending, as Driver.OpenWriter does,
// with a queue before it in mode=non-blocking. logf may be nil.
func (d Drivers) OpenWriter(c *Config, logf func(format string, a ...any)) (Writer, error) {
	name := c.Driver
	if name == "" {
		name = plainName
	}
	drv, err := d.Find(name)
	if err != nil {
		return nil, err
	}
	if logf == nil {
		logf = func(string, ...any) {}
	}
	w, err := drv.OpenWriter(c, logf)
	if err != nil || c.Buffer <= 0 {
		return w, err
	}
	return NonBlocking(w, c.Buffer), nil
}
