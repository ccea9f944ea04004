package logs

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// Subject is the container that a log is of, for --log-opt tag.
type Subject struct {
	ID, Name, ImageID, ImageName string // IDs in full
	Command                      []string
}

// field is what a name in a tag stands for.
func (s Subject) field(name string) (string, bool) {
	short := func(id string) string { return id[:min(len(id), 12)] }
	switch name {
	case ".ID":
		return short(s.ID), true
	case ".FullID":
		return s.ID, true
	case ".Name":
		return s.Name, true
	case ".ImageID":
		return short(s.ImageID), true
	case ".ImageFullID":
		return s.ImageID, true
	case ".ImageName":
		return s.ImageName, true
	case ".DaemonName":
		return "docker", true
	case ".Command":
		return strings.Join(s.Command, " "), true
	}
	return "", false
}

// ExpandTag fills in the template of --log-opt tag. It takes fields alone, and so needs neither
// templates nor regular expressions in a program that writes logs. Errors: InvalidArgument.
func ExpandTag(tag string, s Subject) (string, error) {
	var out strings.Builder
	for {
		text, rest, more := strings.Cut(tag, "{{")
		out.WriteString(text)
		if !more {
			return out.String(), nil
		}
		name, after, ended := strings.Cut(rest, "}}")
		val, known := s.field(strings.Trim(name, " "))
		if !ended || !known {
			wrong := tag[len(text):]
			if ended {
				wrong = "{{" + name + "}}"
			}
			return "", errclass.Invalid("invalid log opt tag: %s: what can be filled in are .ID .FullID .Name .ImageID .ImageFullID .ImageName .DaemonName .Command", wrong)
		}
		out.WriteString(val)
		tag = after
	}
}
