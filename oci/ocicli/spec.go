package ocicli

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/ocicli/forms"
)

func setupSpec(_ *app, f *flags) func([]string) error {
	bundle, rootless := "", false
	f.str(&bundle, "bundle,b", "DIR", "where to write it (default: the current directory)")
	f.boolean(&rootless, "rootless", "for an ordinary user's container")
	return func([]string) error {
		s := forms.Spec(program)
		if rootless {
			forms.Rootless(s, uint32(os.Geteuid()), uint32(os.Getegid()))
		}
		b, err := json.MarshalIndent(s, "", "\t")
		if err != nil {
			return err
		}
		p := filepath.Join(bundle, specFile)
		fd, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			if os.IsExist(err) {
				return errclass.Invalid("file %s exists, remove it first", p)
			}
			return err
		}
		_, err = fd.Write(b)
		if cerr := fd.Close(); err == nil {
			err = cerr
		}
		return err
	}
}
