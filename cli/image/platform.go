package image

import (
	"os"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
)

func platformFlag(fs *pflag.FlagSet, p *string, usage string) {
	fs.StringVar(p, "platform", "", usage)
	if v := os.Getenv("DOCKER_DEFAULT_PLATFORM"); v != "" {
		*p = v
	}
}

func knownOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd", "wasi":
		return true
	}
	return false
}

func hostArch() string { return runtime.GOARCH }

// normalize maps other spellings of an architecture to Go's.
func normalize(arch, variant string) (string, string) {
	arch, variant = strings.ToLower(arch), strings.ToLower(variant)
	switch arch {
	case "i386":
		return "386", ""
	case "x86_64", "x86-64", "amd64":
		if variant == "v1" {
			variant = ""
		}
		return "amd64", variant
	case "aarch64", "arm64":
		if variant == "8" || variant == "v8" {
			variant = ""
		}
		return "arm64", variant
	case "armhf":
		return "arm", "v7"
	case "armel":
		return "arm", "v6"
	case "arm":
		switch variant {
		case "", "7":
			variant = "v7"
		case "5", "6", "8":
			variant = "v" + variant
		}
	}
	return arch, variant
}
