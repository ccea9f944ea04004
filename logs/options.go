package logs

import (
	"slices"
	"strconv"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/internal/errclass"
)

// maxFiles bounds --log-opt max-file.
const maxFiles = 1000

// FileOptions are the names of the options that drivers of rotated files take.
func FileOptions() []string {
	return []string{"compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "tag"}
}

// ReadFileOptions reads the options of drivers of rotated files into c, which holds what counts
// where nothing is said. unknown is how the driver refuses a name, with one %s for it.
func ReadFileOptions(c *Config, opts map[string]string, unknown string) error {
	for k, v := range opts {
		if !slices.Contains(FileOptions(), k) {
			return errclass.Invalid(unknown, k)
		}
		var err error
		switch k {
		case "max-size":
			if v == "-1" {
				c.MaxSize = -1
			} else if c.MaxSize, err = units.FromHumanSize(v); err != nil || c.MaxSize <= 0 {
				return errclass.Invalid("invalid value for max-size: %s", v)
			}
		case "max-file":
			if c.MaxFiles, err = strconv.Atoi(v); err != nil || c.MaxFiles < 1 || c.MaxFiles > maxFiles {
				return errclass.Invalid("max-file cannot be less than 1")
			}
		case "compress":
			if c.Compress, err = strconv.ParseBool(v); err != nil {
				return errclass.Invalid("invalid value for compress: %s", v)
			}
		}
	}
	return nil
}
