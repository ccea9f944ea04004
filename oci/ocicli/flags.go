package ocicli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// flags are the options of a command: what is declared, then what was given.
// Options are long (--name VALUE, --name=VALUE, with one dash too) or one letter;
// as with runc they may stand after arguments, unless stopAtArg.
type flags struct {
	opts []option
	// stopAtArg ends options at the first argument: the rest belongs to a program.
	stopAtArg bool
}

type option struct {
	name  string
	short string
	// arg is how usage calls the value; "" marks a switch.
	arg   string
	help  string
	apply func(string) error
	// attached is an optional value, which only --name=VALUE can give.
	attached bool
}

func (f *flags) add(names, arg, help string, apply func(string) error) {
	name, short, _ := strings.Cut(names, ",")
	f.opts = append(f.opts, option{name: name, short: short, arg: arg, help: help, apply: apply})
}

// boolean declares a switch.
func (f *flags) boolean(p *bool, names, help string) {
	f.add(names, "", help, func(v string) (err error) {
		*p, err = strconv.ParseBool(v)
		return err
	})
}

func (f *flags) str(p *string, names, arg, help string) {
	f.add(names, arg, help, func(v string) error { *p = v; return nil })
}

func (f *flags) list(p *[]string, names, arg, help string) {
	f.add(names, arg, help, func(v string) error { *p = append(*p, v); return nil })
}

func (f *flags) count(p *int, names, arg, help string) {
	f.add(names, arg, help, func(v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		*p = int(n)
		return err
	})
}

func (f *flags) duration(p *time.Duration, names, arg, help string) {
	f.add(names, arg, help, func(v string) (err error) {
		*p, err = time.ParseDuration(v)
		return err
	})
}

// ignored declares an option that is accepted and has no effect here.
func (f *flags) ignored(names, arg, why string) {
	f.add(names, arg, why, func(string) error { return nil })
}

func (f *flags) find(name string) *option {
	for i := range f.opts {
		if o := &f.opts[i]; o.name == name || o.short == name && name != "" {
			return o
		}
	}
	return nil
}

// parse applies the options in args and returns the arguments.
func (f *flags) parse(args []string) (rest []string, err error) {
	for len(args) > 0 {
		a := args[0]
		if a == "--" {
			return append(rest, args[1:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			if f.stopAtArg {
				return append(rest, args...), nil
			}
			rest = append(rest, a)
			args = args[1:]
			continue
		}
		if args, err = f.one(args); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// one applies the option that args start with and returns what follows it.
func (f *flags) one(args []string) ([]string, error) {
	given := args[0]
	args = args[1:]
	name, value, hasValue := strings.Cut(strings.TrimPrefix(given[1:], "-"), "=")
	o := f.find(name)
	switch {
	case o == nil && (name == "help" || name == "h"):
		return nil, errHelp
	case o == nil:
		return nil, usageError("flag provided but not defined: -%s", name)
	case o.arg == "" && !hasValue:
		value = "true"
	case o.arg != "" && !hasValue && !o.attached:
		if len(args) == 0 {
			return nil, usageError("flag needs an argument: -%s", name)
		}
		value, args = args[0], args[1:]
	}
	if err := o.apply(value); err != nil {
		return nil, usageError("invalid value %q for flag -%s: %v", value, name, err)
	}
	return args, nil
}

// usage lists the options, aligned.
func (f *flags) usage() string {
	var b strings.Builder
	for _, o := range f.opts {
		s := "--" + o.name
		if o.short != "" {
			s += ", -" + o.short
		}
		if o.arg != "" {
			s += " " + o.arg
		}
		fmt.Fprintf(&b, "  %-34s %s\n", s, o.help)
	}
	return b.String()
}
