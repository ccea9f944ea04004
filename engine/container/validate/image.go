package validate

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// command joins entrypoint and command.
func command(c *container.Config) (path string, args []string, err error) {
	all := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(all) == 0 {
		return "", nil, errclass.Invalid("no command specified")
	}
	return all[0], all[1:], nil
}

// mergeImage fills in from the image what the request leaves open. What Config shares
// with the caller or the image is copied before it is changed.
func mergeImage(c *container.Config, img *image.Image) {
	i := img.Config.Config
	if c.User == "" {
		c.User = i.User
	}
	ports := networktypes.PortSet{}
	for p := range i.ExposedPorts {
		if port, err := networktypes.ParsePort(p); err == nil {
			ports[port] = struct{}{}
		}
	}
	for p := range c.ExposedPorts {
		ports[p] = struct{}{}
	}
	if c.ExposedPorts = ports; len(ports) == 0 {
		c.ExposedPorts = nil
	}
	env := slices.Clone(c.Env)
	for _, e := range i.Env {
		k, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(c.Env, func(u string) bool { uk, _, _ := strings.Cut(u, "="); return uk == k }) {
			env = append(env, e)
		}
	}
	c.Env = env
	labels := map[string]string{}
	for k, v := range i.Labels {
		labels[k] = v
	}
	for k, v := range c.Labels {
		labels[k] = v
	}
	c.Labels = labels
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(i.Cmd)
			c.ArgsEscaped = false
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(i.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil // --entrypoint "" resets the image's
	}
	if c.WorkingDir == "" {
		c.WorkingDir = i.WorkingDir
	}
	vols := map[string]struct{}{}
	maps.Copy(vols, i.Volumes)
	maps.Copy(vols, c.Volumes)
	if c.Volumes = vols; len(vols) == 0 {
		c.Volumes = nil
	}
	if c.StopSignal == "" {
		c.StopSignal = i.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = slices.Clone(i.Shell)
	}
	mergeHealth(c, img)
}

func mergeHealth(c *container.Config, img *image.Image) {
	i := img.Config.Config.Healthcheck
	if i == nil {
		return
	}
	if c.Healthcheck == nil {
		h := *i
		c.Healthcheck = &h
		return
	}
	h := *c.Healthcheck
	if len(h.Test) == 0 {
		h.Test = i.Test
	}
	if h.Interval == 0 {
		h.Interval = i.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = i.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = i.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = i.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = i.Retries
	}
	c.Healthcheck = &h
}

// platformWarning is Docker's, when the image is not for this machine and nobody asked for it.
func platformWarning(img *image.Image, asked bool) string {
	arch := img.Config.Architecture
	if arch == "" || arch == runtime.GOARCH || asked {
		return ""
	}
	os := img.Config.OS
	if os == "" {
		os = runtime.GOOS
	}
	return fmt.Sprintf("The requested image's platform (%s/%s) does not match the detected host platform (%s/%s) and no specific platform was requested",
		os, arch, runtime.GOOS, runtime.GOARCH)
}
