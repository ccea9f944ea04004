package ocicli

import (
	"encoding/json"

	"github.com/gantry/gantry/oci/ocicli/forms"
)

func setupFeatures(a *app, _ *flags) func([]string) error {
	return func([]string) error {
		enc := json.NewEncoder(a.out)
		enc.SetIndent("", "    ")
		return enc.Encode(forms.Features())
	}
}
