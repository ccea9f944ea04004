package logs

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
)

// The size and number of log files where nothing is said: logs rotate by default.
const (
	defaultLogSize  = 10 << 20
	defaultLogFiles = 3
	maxLogFiles     = 1000
)

// ConfigOf checks a container's log settings and says what the shim shall write; nil
// for the driver "none".
func ConfigOf(path string, c container.LogConfig) (*shim.LogConfig, error) {
	switch c.Type {
	case "none":
		return nil, nil
	case "json-file", "local":
	case "syslog", "journald", "gelf", "fluentd", "awslogs", "gcplogs", "splunk", "etwlogs":
		return nil, errclass.NotImplemented("the log driver %s is not built yet", c.Type)
	default:
		return nil, errclass.Invalid("error looking up logging plugin %s: plugin %q not found", c.Type, c.Type)
	}
	l := &shim.LogConfig{Path: path, MaxSize: defaultLogSize, MaxFiles: defaultLogFiles}
	for k, v := range c.Config {
		var err error
		switch k {
		case "max-size":
			if v == "-1" {
				l.MaxSize = -1
				break
			}
			if l.MaxSize, err = units.FromHumanSize(v); err != nil || l.MaxSize <= 0 {
				return nil, errclass.Invalid("invalid value for max-size: %s", v)
			}
		case "max-file":
			if l.MaxFiles, err = strconv.Atoi(v); err != nil || l.MaxFiles < 1 || l.MaxFiles > maxLogFiles {
				return nil, errclass.Invalid("max-file cannot be less than 1")
			}
		case "compress":
			if l.Compress, err = strconv.ParseBool(v); err != nil {
				return nil, errclass.Invalid("invalid value for compress: %s", v)
			}
		case "mode":
			if v != "blocking" && v != "non-blocking" {
				return nil, errclass.Invalid("logger: logging mode not supported: %s", v)
			}
		case "max-buffer-size":
			if _, err := units.RAMInBytes(v); err != nil {
				return nil, errclass.Invalid("error parsing option max-buffer-size: %w", err)
			}
		case "labels", "labels-regex", "env", "env-regex":
		case "tag":
			if _, err := expandTag(v, Subject{}); err != nil {
				return nil, err
			}
		default:
			return nil, errclass.Invalid("unknown log opt '%s' for %s log driver", k, c.Type)
		}
	}
	return l, nil
}

// Subject is the container that a log is of, for --log-opt tag.
type Subject struct {
	ID, Name, ImageID, ImageName string // IDs in full
	Command                      []string
}

// field matches what a tag's template may hold.
var field = regexp.MustCompile(`{{ *\.([A-Za-z]+) *}}`)

// expandTag fills in the template of --log-opt tag.
func expandTag(tag string, s Subject) (string, error) {
	short := func(id string) string { return id[:min(len(id), 12)] }
	var wrong string
	out := field.ReplaceAllStringFunc(tag, func(m string) string {
		switch name := field.FindStringSubmatch(m)[1]; name {
		case "ID":
			return short(s.ID)
		case "FullID":
			return s.ID
		case "Name":
			return s.Name
		case "ImageID":
			return short(s.ImageID)
		case "ImageFullID":
			return s.ImageID
		case "ImageName":
			return s.ImageName
		case "DaemonName":
			return "docker"
		case "Command":
			return strings.Join(s.Command, " ")
		default:
			wrong = m
			return ""
		}
	})
	if rest := field.ReplaceAllString(tag, ""); wrong == "" && strings.Contains(rest, "{{") {
		wrong = rest[strings.Index(rest, "{{"):]
	}
	if wrong != "" {
		return "", errclass.Invalid("invalid log opt tag: %s: what can be filled in are .ID .FullID .Name .ImageID .ImageFullID .ImageName .DaemonName .Command", wrong)
	}
	return out, nil
}

// Attrs are the "attrs" of every line: what --log-opt labels, env and tag ask for.
func Attrs(s Subject, config *container.Config, opts map[string]string) json.RawMessage {
	attrs := map[string]string{}
	names := strings.Split(opts["labels"], ",")
	match := func(string) bool { return false }
	if p := opts["labels-regex"]; p != "" {
		match = matcher(p)
	}
	for k, v := range config.Labels {
		if slices.Contains(names, k) || match(k) {
			attrs[k] = v
		}
	}
	names = strings.Split(opts["env"], ",")
	match = func(string) bool { return false }
	if p := opts["env-regex"]; p != "" {
		match = matcher(p)
	}
	for _, e := range config.Env {
		if k, v, ok := strings.Cut(e, "="); ok && (slices.Contains(names, k) || match(k)) {
			attrs[k] = v
		}
	}
	if tag, err := expandTag(opts["tag"], s); err == nil && tag != "" {
		attrs["tag"] = tag
	}
	if len(attrs) == 0 {
		return nil
	}
	data, err := json.Marshal(attrs)
	if err != nil {
		return nil // a map of strings always encodes
	}
	return data
}

// matcher matches a regular expression, or exactly what is none.
func matcher(pattern string) func(string) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return func(s string) bool { return s == pattern }
	}
	return re.MatchString
}
