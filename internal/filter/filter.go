// Package filter decodes and matches the `filters` parameter of list requests.
package filter

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// Args are filter values by key, as `{"key": {"value": true}}` or the older
// `{"key": ["value"]}` decode.
type Args map[string][]string

// Parse decodes the parameter; "" is no filter. Errors are of class InvalidArgument.
func Parse(s string) (Args, error) {
	if s == "" {
		return nil, nil
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(s), &sets); err == nil {
		a := Args{}
		for k, set := range sets {
			for v, on := range set {
				if on {
					a[k] = append(a[k], v)
				}
			}
			slices.Sort(a[k])
		}
		return a, nil
	}
	var lists map[string][]string
	if err := json.Unmarshal([]byte(s), &lists); err != nil {
		return nil, errclass.Invalid("invalid filter: %w", err)
	}
	return lists, nil
}

// Check refuses keys that are not in accepted, with class InvalidArgument.
func (a Args) Check(accepted ...string) error {
	for k := range a {
		if !slices.Contains(accepted, k) {
			return errclass.Invalid("invalid filter '%s'", k)
		}
	}
	return nil
}

// Any reports whether key is absent or match holds for one of its values.
func (a Args) Any(key string, match func(value string) bool) bool {
	return len(a[key]) == 0 || slices.ContainsFunc(a[key], match)
}

// Bool reads a filter that is true or false; def when absent. Errors are of class InvalidArgument.
func (a Args) Bool(key string, def bool) (bool, error) {
	switch v := a[key]; {
	case len(v) == 0:
		return def, nil
	case len(v) == 1 && (v[0] == "1" || strings.EqualFold(v[0], "true")):
		return true, nil
	case len(v) == 1 && (v[0] == "0" || strings.EqualFold(v[0], "false")):
		return false, nil
	default:
		return def, errclass.Invalid("invalid filter '%s=%v'", key, v)
	}
}

// Labels reports whether labels has every `key` or `key=value` asked for under key,
// and none under key+"!".
func (a Args) Labels(key string, labels map[string]string) bool {
	has := func(want string) bool {
		k, v, pair := strings.Cut(want, "=")
		got, ok := labels[k]
		return ok && (!pair || got == v)
	}
	for _, w := range a[key] {
		if !has(w) {
			return false
		}
	}
	return !slices.ContainsFunc(a[key+"!"], has)
}
