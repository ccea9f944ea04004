package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/spf13/pflag"
)

// maxConfigFile bounds daemon.json in bytes.
const maxConfigFile = 1 << 20

// keyFlags are the keys of daemon.json that are not called as their flag.
func keyFlags() map[string]string {
	return map[string]string{
		"hosts": "host", "labels": "label", "exec-opts": "exec-opt", "log-opts": "log-opt", "dns-opts": "dns-opt",
		"insecure-registries": "insecure-registry", "registry-mirrors": "registry-mirror", "storage-opts": "storage-opt",
		"default-address-pools": "default-address-pool", "default-ulimits": "default-ulimit", "runtimes": "add-runtime",
		"authorization-plugins": "authorization-plugin", "cdi-spec-dirs": "cdi-spec-dir", "features": "feature",
		"default-network-opts": "default-network-opt", "node-generic-resources": "node-generic-resource",
		"host-gateway-ips": "host-gateway-ip", "containerd-plugin-namespace": "containerd-plugins-namespace",
	}
}

// unbuiltKeys are keys without a flag that this engine does not have yet.
func unbuiltKeys() []string {
	return []string{
		"builder", "min-api-version", "swarm-raft-heartbeat-tick", "swarm-raft-election-tick",
		"default-init", "proxies",
	}
}

// notInFile are flags that make no sense in the file.
func notInFile() []string { return []string{"config-file", "validate", "help", "version"} }

// Parse reads the command line and the configuration file it names. help and version
// tell that the user asked for those; pflag.ErrHelp is not an error here. Errors are
// of class InvalidArgument and read as dockerd's.
func Parse(args []string) (c *Config, version bool, err error) {
	c = defaultConfig()
	fs := flagSet(c)
	fs.Usage = func() {} // the caller prints it, to where it wants
	fs.BoolVarP(&version, "version", "v", false, "Print version information and quit")
	if err := fs.Parse(args); err != nil {
		return nil, false, err
	}
	if version {
		return c, true, nil
	}
	if fs.NArg() > 0 {
		return nil, false, errclass.Invalid(`"dockerd" accepts no arguments.`)
	}
	c.ConfigFileGiven = fs.Changed("config-file")
	c.set = map[string]string{}
	if err := readConfigFile(fs, c); err != nil {
		return nil, false, fmt.Errorf("unable to configure the Docker daemon with file %s: %w", c.ConfigFile, err)
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if !isUnbuilt(f) {
			c.set[f.Name] = f.Value.String()
		}
	})
	if err := c.check(); err != nil {
		return nil, false, err
	}
	return c, false, nil
}

// Usage is the text of --help.
func Usage() string {
	var b strings.Builder
	b.WriteString("Usage:  dockerd [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n")
	fs := flagSet(defaultConfig())
	fs.BoolP("version", "v", false, "Print version information and quit")
	b.WriteString(fs.FlagUsages())
	return b.String()
}

func readConfigFile(fs *pflag.FlagSet, c *Config) error {
	data, err := readBounded(c.ConfigFile)
	if errors.Is(err, os.ErrNotExist) && !c.ConfigFileGiven {
		return nil
	}
	if err != nil {
		return err
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return nil
	}
	return applyFile(fs, data)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err == nil && len(data) > maxConfigFile {
		return nil, errclass.Invalid("larger than %d bytes", maxConfigFile)
	}
	return data, err
}

// applyFile sets the flags that the file's keys stand for. Nothing of the file is
// used when any key of it is wrong.
func applyFile(fs *pflag.FlagSet, data []byte) error {
	keys := map[string]json.RawMessage{}
	data = []byte(strings.TrimPrefix(string(data), "\ufeff")) // editors' byte order mark
	if err := json.Unmarshal(data, &keys); err != nil {
		return errclass.Invalid("invalid JSON: %w", err)
	}
	// These two are ignored by Docker, too.
	delete(keys, "deprecated-key-path")
	delete(keys, "allow-nondistributable-artifacts")
	flags := keyFlags()
	var unknown, unbuilt, conflicts []string
	todo := map[string]*pflag.Flag{}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		name := key
		if n, ok := flags[key]; ok {
			name = n
		}
		f := fs.Lookup(name)
		switch {
		case slices.Contains(unbuiltKeys(), key):
			unbuilt = append(unbuilt, key)
		case f == nil || slices.Contains(notInFile(), name) || name == key && isPluralFlag(name):
			unknown = append(unknown, key)
		case harmless(f, keys[key]):
		case isUnbuilt(f):
			unbuilt = append(unbuilt, key)
		case f.Changed:
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, f.Value, fileText(keys[key])))
		default:
			todo[key] = f
		}
	}
	switch {
	case len(unknown) > 0:
		return errclass.Invalid("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	case len(unbuilt) > 0:
		return errclass.Invalid("the following directives are known from Docker but not built yet in this engine: %s", strings.Join(unbuilt, ", "))
	case len(conflicts) > 0:
		return errclass.Invalid("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(todo)) {
		values, err := fileValues(todo[key], keys[key])
		if err != nil {
			return errclass.Invalid("invalid value for %q: %w", key, err)
		}
		for _, v := range values {
			if err := fs.Set(todo[key].Name, v); err != nil {
				return errclass.Invalid("invalid value for %q: %w", key, err)
			}
		}
	}
	return nil
}

// isPluralFlag tells that a flag's key has another name: "label" is not a key.
func isPluralFlag(name string) bool {
	for key, flag := range keyFlags() {
		if flag == name && key != "host-gateway-ips" {
			return true
		}
	}
	return false
}

// harmless tells that a key of an option that isn't built asks for nothing: an empty
// list or object, an empty string, false, or a feature that is always on.
func harmless(f *pflag.Flag, raw json.RawMessage) bool {
	if !isUnbuilt(f) {
		return false
	}
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return false
	}
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0 || f.Name == "feature" && len(v) == 1 && v["containerd-snapshotter"] == true
	}
	return false
}

// fileText shows a value of the file in an error.
func fileText(raw json.RawMessage) string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return "[" + strings.Join(list, " ") + "]"
	}
	return strings.Trim(string(raw), `"`)
}

// fileValues turns a JSON value into the words the flag would be given, checking the type.
func fileValues(f *pflag.Flag, raw json.RawMessage) ([]string, error) {
	switch typ := f.Value.Type(); typ {
	case "bool":
		var v bool
		err := json.Unmarshal(raw, &v)
		return []string{fmt.Sprint(v)}, err
	case "int":
		var v int
		err := json.Unmarshal(raw, &v)
		return []string{fmt.Sprint(v)}, err
	case "bytes":
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return []string{s}, nil
		}
		var n int64
		err := json.Unmarshal(raw, &n)
		return []string{fmt.Sprint(n)}, err
	case "list":
		var list []string
		if f.Name == "host-gateway-ip" && len(raw) > 0 && raw[0] == '"' {
			list = make([]string, 1)
			return list, json.Unmarshal(raw, &list[0])
		}
		err := json.Unmarshal(raw, &list)
		return list, err
	case "pool-options":
		var pools []struct {
			Base string `json:"base"`
			Size int    `json:"size"`
		}
		if err := json.Unmarshal(raw, &pools); err != nil {
			return nil, err
		}
		var out []string
		for _, p := range pools {
			out = append(out, fmt.Sprintf("base=%s,size=%d", p.Base, p.Size))
		}
		return out, nil
	case "map":
		m := map[string]string{}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		var out []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out = append(out, k+"="+m[k])
		}
		return out, nil
	case "runtimes":
		return runtimeValues(raw)
	case "mapmap":
		m := map[string]map[string]string{}
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		var out []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			for _, k := range slices.Sorted(maps.Keys(m[name])) {
				out = append(out, name+"="+k+"="+m[name][k])
			}
		}
		return out, nil
	default:
		var s string
		err := json.Unmarshal(raw, &s)
		return []string{s}, err
	}
}
