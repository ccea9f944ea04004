package testimage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrUsage is returned by Tool for a command line it does not understand.
var ErrUsage = errors.New(`usage:
  mkimage [flags] push URL RECIPE=REPO[:TAG] ...
  mkimage [flags] archive FILE RECIPE=NAME[:TAG] ...
  mkimage [flags] docker-archive FILE RECIPE=NAME[:TAG] ...
  mkimage ping URL
  mkimage cache|cached
  mkimage list`)

// CacheDir is where images that are slow to make are kept between runs:
// $GANTRY_TEST_CACHE, else a directory under /var/tmp.
func CacheDir() string {
	if d := os.Getenv("GANTRY_TEST_CACHE"); d != "" {
		return d
	}
	return "/var/tmp/gantry-test-cache"
}

// Tool is the command line of mkimage.
func Tool(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	user := fs.String("user", "", "user:password for the registry")
	ca := fs.String("ca", "", "PEM file of certificates to trust")
	if err := fs.Parse(args); err != nil {
		return errors.Join(ErrUsage, err)
	}
	args = fs.Args()
	if len(args) == 0 {
		return ErrUsage
	}
	p := &Pusher{CAFile: *ca}
	p.User, p.Password, _ = strings.Cut(*user, ":")
	switch {
	case args[0] == "list":
		for _, name := range sortedKeys(Recipes()) {
			fmt.Fprintf(out, "%-12s %s\n", name, Recipes()[name])
		}
		return nil
	case args[0] == "ping" && len(args) == 2:
		p.Base = args[1]
		return p.Ping(ctx)
	case (args[0] == "cache" || args[0] == "cached") && len(args) == 1:
		return inTempStore(func(s *Store) error {
			if args[0] == "cached" {
				return Cached(s, CacheDir())
			}
			return Prepare(s, CacheDir())
		})
	case len(args) >= 3:
		return build(ctx, p, args[0], args[1], args[2:], out)
	}
	return ErrUsage
}

func inTempStore(f func(*Store) error) error {
	dir, err := os.MkdirTemp("", "mkimage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := NewStore(dir)
	if err != nil {
		return err
	}
	return f(s)
}

func build(ctx context.Context, p *Pusher, verb, target string, images []string, out io.Writer) error {
	return inTempStore(func(s *Store) error { return buildIn(ctx, s, p, verb, target, images, out) })
}

func buildIn(ctx context.Context, s *Store, p *Pusher, verb, target string, images []string, out io.Writer) error {
	roots := map[string]ocispec.Descriptor{}
	for _, spec := range images {
		recipe, ref, ok := strings.Cut(spec, "=")
		if !ok {
			return ErrUsage
		}
		d, err := Make(s, recipe, CacheDir())
		if err != nil {
			return err
		}
		roots[ref] = d
		fmt.Fprintln(out, d.Digest, ref)
	}
	switch verb {
	case "push":
		p.Base = target
		for _, ref := range sortedKeys(roots) {
			repo, tag := SplitRef(ref)
			if err := p.Push(ctx, s, roots[ref], repo, tag); err != nil {
				return err
			}
		}
		return nil
	case "archive":
		return writeFile(target, func(w io.Writer) error { return s.WriteOCIArchive(w, roots) })
	case "docker-archive":
		return writeFile(target, func(w io.Writer) error { return s.WriteDockerArchive(w, roots) })
	}
	return ErrUsage
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
