package validate

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// maxName bounds a name, which becomes part of host names and file names.
const maxName = 255

// Name validates a container's name, with or without a slash before it.
func Name(name string) error {
	if bare := strings.TrimPrefix(name, "/"); len(bare) > maxName || !validName(bare) {
		return errclass.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func validName(name string) bool {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(name) > 1
}
