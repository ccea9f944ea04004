package validate

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
)

// Links reads "container:alias" links: alias → container. Errors are of class Invalid.
func Links(links []string) (map[string]string, error) {
	var out map[string]string
	for _, l := range links {
		target, alias, ok := strings.Cut(strings.TrimPrefix(l, "/"), ":")
		if !ok {
			alias = target
		}
		if target == "" || alias == "" {
			return nil, errclass.Invalid("invalid link format: %s", l)
		}
		if id.Valid(target) {
			target = id.Short(target)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[strings.ToLower(alias)] = strings.ToLower(target)
	}
	return out, nil
}
