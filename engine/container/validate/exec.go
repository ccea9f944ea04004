package validate

import (
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
)

// Exec validates an exec request. keys are those that detach the client; nil without a terminal,
// where all input is data.
func Exec(q *container.ExecCreateRequest) (keys []byte, err error) {
	if len(q.Cmd) == 0 {
		return nil, errclass.Invalid("No exec command specified")
	}
	for _, a := range slices.Concat(q.Cmd, q.Env) {
		if strings.ContainsRune(a, 0) {
			return nil, errclass.Invalid("invalid exec command: contains a null byte")
		}
	}
	if keys, err = DetachKeys(q.DetachKeys); err != nil || !q.Tty {
		return nil, err
	}
	return keys, nil
}

// defaultDetach is ctrl-p ctrl-q.
const defaultDetach = "\x10\x11"

// DetachKeys reads "ctrl-a,x": the bytes that detach a client; "" is the default.
func DetachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte(defaultDetach), nil
	}
	var out []byte
	for k := range strings.SplitSeq(s, ",") {
		switch c, ctrl := strings.CutPrefix(k, "ctrl-"); {
		case !ctrl && len(k) == 1 && k[0] < 0x80:
			out = append(out, k[0])
		case ctrl && len(c) == 1 && (c[0] >= 'a' && c[0] <= 'z' || c[0] == '@' || c[0] >= '[' && c[0] <= '_'):
			out = append(out, c[0]&0x1f)
		case k == "DEL":
			out = append(out, 0x7f)
		default:
			return nil, errclass.Invalid("Invalid detach keys (%s) provided", s)
		}
	}
	return out, nil
}
