package server

import (
	"encoding/json"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parsePlatform reads "os[/arch[/variant]]" or an OCI platform in JSON.
func parsePlatform(s string) (ocispec.Platform, error) {
	if strings.HasPrefix(s, "{") {
		var p ocispec.Platform
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			return p, errclass.Invalid("failed to parse platform: %w", err)
		}
		if p.OS == "" || p.Architecture == "" {
			return p, errclass.Invalid("both OS and Architecture must be provided in platform %q", s)
		}
		return p, nil
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if strings.Trim(p, ".") == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
			return ocispec.Platform{}, errclass.Invalid("%q is an invalid component of %q: platform specifier component must match [A-Za-z0-9_.-]+", p, s)
		}
	}
	for i := range parts {
		parts[i] = strings.ToLower(parts[i])
	}
	var p ocispec.Platform
	switch len(parts) {
	case 1:
		if arch, variant, ok := knownArch(parts[0], ""); ok {
			p = ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
		} else if parts[0] == "linux" {
			p = ocispec.Platform{OS: "linux"}
		} else {
			return p, errclass.Invalid("%q: unknown operating system or architecture", s)
		}
	case 2, 3:
		variant := ""
		if len(parts) == 3 {
			variant = parts[2]
		}
		p = ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: variant}
		if arch, v, ok := knownArch(parts[1], variant); ok {
			p.Architecture, p.Variant = arch, v
		}
	default:
		return p, errclass.Invalid("%q: cannot parse platform specifier", s)
	}
	return p, nil
}

// parsePlatforms reads the repeated or single platform parameter of newer endpoints.
func (c *call) parsePlatforms(name string) ([]ocispec.Platform, error) {
	var list []ocispec.Platform
	for _, v := range c.query[name] {
		if v == "" {
			continue
		}
		p, err := parsePlatform(v)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// onePlatform is parsePlatforms for endpoints that take at most one.
func (c *call) onePlatform(name string, since int) (*ocispec.Platform, error) {
	if c.version.before(since) {
		return nil, nil
	}
	list, err := c.parsePlatforms(name)
	switch {
	case err != nil:
		return nil, err
	case len(list) == 0:
		return nil, nil
	case len(list) > 1:
		return nil, errclass.Invalid("only one %s may be given", name)
	}
	return &list[0], nil
}

// knownArch maps the spellings people use to GOARCH and variant.
func knownArch(arch, variant string) (string, string, bool) {
	switch arch {
	case "amd64", "x86_64", "x86-64":
		if variant == "v1" {
			variant = ""
		}
		return "amd64", variant, true
	case "arm64", "aarch64":
		if variant == "8" || variant == "v8" {
			variant = ""
		}
		return "arm64", variant, true
	case "arm":
		if variant == "" || variant == "7" {
			variant = "v7"
		}
		return "arm", variant, true
	case "armhf":
		return "arm", "v7", true
	case "armel":
		return "arm", "v6", true
	case "386", "i386", "i686", "x86":
		return "386", "", true
	case "riscv64", "ppc64le", "s390x", "loong64", "mips64le":
		return arch, variant, true
	}
	return arch, variant, false
}
