package container

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/format"
	"github.com/moby/moby/api/types/container"
)

// Row is a container in lists. Its methods are the fields of --format.
type Row struct {
	c     *container.Summary
	trunc bool
}

// NewRow makes the row of a container, for other packages; trunc shortens what is long.
func NewRow(c *container.Summary, trunc bool) *Row { return &Row{c: c, trunc: trunc} }

// Titles are the titles of the fields of rows.
func Titles() format.Header {
	return format.Header{
		"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND",
		"CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE",
		"Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
}

// MarshalJSON is the row as --format json shows it.
func (r *Row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// ID is the container's ID.
func (r *Row) ID() string {
	if r.trunc {
		return format.ShortID(r.c.ID)
	}
	return r.c.ID
}

// Names are the names without their slash; without --no-trunc those of links are left out.
func (r *Row) Names() string {
	var out []string
	for _, n := range r.c.Names {
		n = strings.TrimPrefix(n, "/")
		if r.trunc && strings.Contains(n, "/") {
			continue
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

// Image is the image as given at creation, or the ID of an image that lost its name.
func (r *Row) Image() string {
	if r.c.Image == "" {
		return "<no image>"
	}
	if r.trunc {
		if short := format.ShortID(r.c.ImageID); short == format.ShortID(r.c.Image) && short != "" {
			return short
		}
		// A digest is left out where a tag is there.
		if name, _, ok := strings.Cut(r.c.Image, "@"); ok && strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
			return name
		}
	}
	return r.c.Image
}

// Command is the command line in quotes.
func (r *Row) Command() string {
	c := r.c.Command
	if r.trunc {
		c = format.Ellipsis(c, 20)
	}
	return strconv.Quote(c)
}

// CreatedAt is the time of creation.
func (r *Row) CreatedAt() string { return time.Unix(r.c.Created, 0).String() }

// RunningFor is the time since creation.
func (r *Row) RunningFor() string {
	return units.HumanDuration(time.Now().UTC().Sub(time.Unix(r.c.Created, 0))) + " ago"
}

// Platform is os/arch of the image where the daemon tells it.
func (r *Row) Platform() *Platform {
	d := r.c.ImageManifestDescriptor
	if d == nil || d.Platform == nil {
		return nil
	}
	return &Platform{d.Platform.OS, d.Platform.Architecture, d.Platform.Variant}
}

// Platform is os/arch[/variant].
type Platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant,omitempty"`
}

// String joins the parts by slashes.
func (p *Platform) String() string {
	s := p.OS + "/" + p.Arch
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// State is the state in one word.
func (r *Row) State() string { return string(r.c.State) }

// Status is the state in words.
func (r *Row) Status() string { return r.c.Status }

// Ports are the ports, neighbours joined to ranges.
func (r *Row) Ports() string { return Ports(r.c.Ports) }

// Size is the size of the writable layer and, in brackets, with the image.
func (r *Row) Size() string {
	rw := units.HumanSizeWithPrecision(float64(r.c.SizeRw), 3)
	if r.c.SizeRootFs <= 0 {
		return rw
	}
	return fmt.Sprintf("%s (virtual %s)", rw, units.HumanSizeWithPrecision(float64(r.c.SizeRootFs), 3))
}

// Labels are all labels, sorted.
func (r *Row) Labels() string {
	out := make([]string, 0, len(r.c.Labels))
	for k, v := range r.c.Labels {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Label is the value of one label.
func (r *Row) Label(name string) string { return r.c.Labels[name] }

// Mounts are names or sources of the mounts.
func (r *Row) Mounts() string {
	var out []string
	for _, m := range r.c.Mounts {
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if r.trunc {
			n = format.Ellipsis(n, 15)
		}
		out = append(out, n)
	}
	return strings.Join(out, ",")
}

// LocalVolumes is the number of volumes of the local driver.
func (r *Row) LocalVolumes() string {
	n := 0
	for _, m := range r.c.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

// Networks are the names of the networks, sorted.
func (r *Row) Networks() string {
	var out []string
	if r.c.NetworkSettings != nil {
		for k := range r.c.NetworkSettings.Networks {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Ports writes ports as `ps` shows them. Published ports whose number differs inside come
// last, one each; the others are joined to ranges per address and protocol.
func Ports(ports []container.PortSummary) string {
	ports = append([]container.PortSummary(nil), ports...)
	sort.SliceStable(ports, func(i, j int) bool {
		a, b := ports[i], ports[j]
		if a.PrivatePort != b.PrivatePort {
			return a.PrivatePort < b.PrivatePort
		}
		if ai, bi := ipText(a), ipText(b); ai != bi {
			return ai < bi
		}
		if a.PublicPort != b.PublicPort {
			return a.PublicPort < b.PublicPort
		}
		return a.Type < b.Type
	})
	type span struct{ first, last uint16 }
	type key struct{ ip, proto string }
	spans := map[key]*span{}
	var order []key
	var out, mapped []string
	text := func(k key, s span) string {
		r := strconv.Itoa(int(s.first))
		if s.last != s.first {
			r += "-" + strconv.Itoa(int(s.last))
		}
		if k.ip != "" {
			r = net.JoinHostPort(k.ip, r) + "->" + r
		}
		return r + "/" + k.proto
	}
	for _, p := range ports {
		k := key{proto: p.Type}
		if ip := ipText(p); ip != "" {
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			k.ip = ip
		}
		s := spans[k]
		switch {
		case s == nil:
			spans[k] = &span{p.PrivatePort, p.PrivatePort}
			order = append(order, k)
		case p.PrivatePort == s.last+1:
			s.last = p.PrivatePort
		default:
			out = append(out, text(k, *s))
			spans[k] = &span{p.PrivatePort, p.PrivatePort}
		}
	}
	for _, k := range order {
		out = append(out, text(k, *spans[k]))
	}
	return strings.Join(append(out, mapped...), ", ")
}

func ipText(p container.PortSummary) string {
	if !p.IP.IsValid() {
		return ""
	}
	return p.IP.String()
}
