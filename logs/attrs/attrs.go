// Package attrs computes the attributes of a container's log entries, as --log-opt labels,
// labels-regex, env, env-regex and tag ask for. The daemon computes them; the shim writes them.
package attrs

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/gantry/gantry/logs"
)

// Container is what attributes are taken from.
type Container struct {
	logs.Subject
	Labels map[string]string
	Env    []string // KEY=value
}

// Of are the attributes of every record, as a JSON object of strings; nil without any.
func Of(c Container, opts map[string]string) json.RawMessage {
	attrs := map[string]string{}
	wanted := chooser(opts["labels"], opts["labels-regex"])
	for k, v := range c.Labels {
		if wanted(k) {
			attrs[k] = v
		}
	}
	wanted = chooser(opts["env"], opts["env-regex"])
	for _, e := range c.Env {
		if k, v, ok := strings.Cut(e, "="); ok && wanted(k) {
			attrs[k] = v
		}
	}
	if tag, err := logs.ExpandTag(opts["tag"], c.Subject); err == nil && tag != "" {
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

// chooser tells the keys that a list of names has or a regular expression matches; what is no
// regular expression matches itself only.
func chooser(list, pattern string) func(string) bool {
	names := strings.Split(list, ",")
	if pattern == "" {
		return func(k string) bool { return slices.Contains(names, k) }
	}
	match := func(k string) bool { return k == pattern }
	if re, err := regexp.Compile(pattern); err == nil {
		match = re.MatchString
	}
	return func(k string) bool { return slices.Contains(names, k) || match(k) }
}
