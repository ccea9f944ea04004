package run

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

const maxFlagFile = 16 << 20

func readLimited(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		// The words of open(2), as every tool prints them.
		var pe *os.PathError
		if errors.As(err, &pe) {
			pe.Op = "open"
		}
		return nil, err
	}
	if st.Mode().IsRegular() && st.Size() > maxFlagFile {
		return nil, fmt.Errorf("%s is too large", name)
	}
	return os.ReadFile(name)
}

func checkAttach(v string) (string, error) {
	switch s := strings.ToLower(v); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return v, errors.New("valid streams are STDIN, STDOUT and STDERR")
}

func checkIP(v string) (string, error) {
	if ip := net.ParseIP(strings.TrimSpace(v)); ip != nil {
		return ip.String(), nil
	}
	return "", fmt.Errorf("IP address is not correctly formatted: %s", v)
}

func checkDomain(v string) (string, error) {
	if v = strings.TrimSpace(v); v == "." {
		return v, nil
	}
	bad := fmt.Errorf("%s is not a valid domain", v)
	if !regexp.MustCompile(`[a-zA-Z]`).MatchString(v) {
		return "", bad
	}
	m := regexp.MustCompile(`^(:?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])))*)\.?\s*$`).FindStringSubmatch(v)
	if m == nil || len(m[1]) >= 255 {
		return "", bad
	}
	return m[1], nil
}

func checkHost(v string) (string, error) {
	k, ip, ok := strings.Cut(v, "=")
	if !ok {
		k, ip, ok = strings.Cut(v, ":")
	}
	if !ok || k == "" {
		return "", fmt.Errorf("bad format for add-host: %q", v)
	}
	if ip == "host-gateway" {
		return k + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := checkIP(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return k + ":" + ip, nil
}

func checkLink(v string) (string, error) {
	if v == "" {
		return v, errors.New("empty string specified for links")
	}
	if strings.Count(v, ":") > 1 {
		return v, fmt.Errorf("bad format for links: %s", v)
	}
	return v, nil
}

func checkDeviceRule(v string) (string, error) {
	if regexp.MustCompile(`^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$`).MatchString(v) {
		return v, nil
	}
	return v, fmt.Errorf("invalid device cgroup format '%s'", v)
}

func checkSysctl(v string) (string, error) {
	k, _, ok := strings.Cut(v, "=")
	if ok {
		switch k {
		case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
			"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
			return v, nil
		}
		if strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "fs.mqueue.") {
			return v, nil
		}
	}
	return "", fmt.Errorf("sysctl '%s' is not allowed", v)
}

func (f *Flags) checkEnv(v string) (string, error) { return CheckEnv(v, f.Getenv) }

// CheckEnv completes a value of -e: a bare name takes its value of the environment, when
// there is one.
func CheckEnv(v string, getenv func(string) (string, bool)) (string, error) {
	name, _, ok := strings.Cut(v, "=")
	if name == "" {
		return "", errors.New("invalid environment variable: " + v)
	}
	if ok {
		return v, nil
	}
	if val, found := getenv(name); found {
		return name + "=" + val, nil
	}
	return v, nil
}

// fields splits the comma-separated value of --mount, --network or --gpus.
func fields(v string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(v))
	return r.Read()
}

type rateKind int

const (
	rateBps rateKind = iota
	rateIOps
	rateWeight
)

// deviceRates is a list of <device-path>:<number> flags.
type deviceRates struct {
	kind rateKind
	devs []blkiodev.ThrottleDevice
}

// Set implements pflag.Value.
func (d *deviceRates) Set(v string) error {
	dev, num, ok := strings.Cut(v, ":")
	if !ok || dev == "" {
		return fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(dev, "/dev/") {
		return fmt.Errorf("bad format for device path: %s", v)
	}
	var rate uint64
	switch d.kind {
	case rateBps:
		n, err := units.RAMInBytes(num)
		if err != nil || n < 0 {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", v)
		}
		rate = uint64(n)
	case rateIOps:
		n, err := strconv.ParseUint(num, 10, 64)
		if err != nil {
			return fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", v)
		}
		rate = n
	case rateWeight:
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil || (n > 0 && (n < 10 || n > 1000)) {
			return fmt.Errorf("invalid weight for device: %s", v)
		}
		rate = n
	}
	d.devs = append(d.devs, blkiodev.ThrottleDevice{Path: dev, Rate: rate})
	return nil
}

// Type implements pflag.Value.
func (d *deviceRates) Type() string { return "list" }

// String implements pflag.Value.
func (d *deviceRates) String() string {
	out := make([]string, 0, len(d.devs))
	for _, t := range d.devs {
		out = append(out, t.Path+":"+strconv.FormatUint(t.Rate, 10))
	}
	return fmt.Sprint(out)
}

func (d *deviceRates) throttle() []*blkiodev.ThrottleDevice {
	out := make([]*blkiodev.ThrottleDevice, 0, len(d.devs))
	for i := range d.devs {
		out = append(out, &d.devs[i])
	}
	return out
}

func (d *deviceRates) weights() []*blkiodev.WeightDevice {
	out := make([]*blkiodev.WeightDevice, 0, len(d.devs))
	for _, t := range d.devs {
		out = append(out, &blkiodev.WeightDevice{Path: t.Path, Weight: uint16(t.Rate)})
	}
	return out
}

// gpuList is --gpus.
type gpuList struct{ reqs []container.DeviceRequest }

// Type implements pflag.Value.
func (g *gpuList) Type() string { return "gpu-request" }

// String implements pflag.Value.
func (g *gpuList) String() string {
	out := make([]string, 0, len(g.reqs))
	for _, r := range g.reqs {
		out = append(out, fmt.Sprintf("%v", r))
	}
	return strings.Join(out, ", ")
}

// Set implements pflag.Value.
func (g *gpuList) Set(v string) error {
	fs, err := fields(v)
	if err != nil {
		return err
	}
	var r container.DeviceRequest
	seen := map[string]bool{}
	for _, field := range fs {
		key, val, ok := strings.Cut(field, "=")
		if !ok {
			key, val = "count", field
		}
		if seen[key] {
			return fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		switch key {
		case "driver":
			r.Driver = val
		case "count":
			if val == "all" {
				r.Count = -1
				break
			}
			n, err := strconv.Atoi(val)
			if err != nil {
				var ne *strconv.NumError
				if errors.As(err, &ne) {
					err = ne.Err
				}
				return fmt.Errorf("invalid count (%s): value must be either \"all\" or an integer: %w", val, err)
			}
			r.Count = n
		case "device":
			r.DeviceIDs = strings.Split(val, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(val, ","), "gpu")}
		case "options":
			kv, err := fields(val)
			if err != nil {
				return fmt.Errorf("failed to read gpu options: %w", err)
			}
			r.Options = opts.KVToMap(kv)
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if r.Count == 0 && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	g.reqs = append(g.reqs, r)
	return nil
}

func parseAddrs(vals []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, v := range vals {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return nil, fmt.Errorf("%s is not an ip address", v)
		}
		out = append(out, a)
	}
	return out, nil
}
