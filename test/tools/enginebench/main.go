// Command enginebench measures engines that speak the Docker API side by side: the processor and
// wall time of a container's whole life and of an exec, and the memory of the engine's own
// processes.
//
//	enginebench [-n ROUNDS] [-image REF] NAME=SOCKET,CGROUP[,DOCKER] ...
//
// DOCKER is a command line; where every engine has one, `docker run --rm` is measured too, as a user waits for it: its
// processor time is the engine's and the command's own.
// CGROUP is a control group below which the engine runs in a child named "engine"; its
// containers get the child "containers". What both use together is an operation's cost:
// the daemon, what it starts, and the containers themselves. The rounds of the engines
// alternate, so that their proportion holds on a busy machine where milliseconds do not.
// Beside them stands what the same process costs without any engine: bare fork and exec,
// then in six new namespaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "enginebench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := flag.Int("n", 40, "counted `rounds` of every operation")
	image := flag.String("image", "bench/busybox", "`image` with /bin/true and /bin/sleep, present in every engine")
	many := flag.Int("many", 50, "`containers` that run while memory is measured")
	only := flag.String("only", "", "measure operations whose `name` contains this, and no memory")
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("usage: enginebench [-n ROUNDS] [-image REF] NAME=SOCKET,CGROUP[,DOCKER] …")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	var engines []*engine
	for _, arg := range flag.Args() {
		e, err := newEngine(arg, *image)
		if err != nil {
			return err
		}
		defer e.client.Close()
		engines = append(engines, e)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "operation\tof\tcpu ms (median)\tcpu ms (min)\twall ms (median)\twall ms (min)\tcpu : first\twall : first")
	for _, f := range floors() {
		s, err := f.measure(*rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		s.print(table, f.name, "floor", nil)
	}
	var ops []operation
	for _, op := range append(operations(), commandOperations(engines)...) {
		if strings.Contains(op.name, *only) {
			ops = append(ops, op)
		}
	}
	if err := compare(ctx, table, ops, engines, *rounds); err != nil {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if *only != "" {
		return nil
	}
	return memory(ctx, engines, *many)
}

// compare runs operations on all engines, all of them in turn: differences between two
// operations of one engine hold as well.
func compare(ctx context.Context, table *tabwriter.Writer, ops []operation, engines []*engine, rounds int) error {
	all := make([][]samples, len(ops))
	for o, op := range ops {
		all[o] = make([]samples, len(engines))
		for _, e := range engines {
			defer op.clear(context.WithoutCancel(ctx), e)
			if err := op.prepare(ctx, e); err != nil {
				return fmt.Errorf("%s on %s: %w", op.name, e.name, err)
			}
			for range 3 { // warm
				if err := op.once(ctx, e); err != nil {
					return fmt.Errorf("%s on %s: %w", op.name, e.name, err)
				}
			}
		}
	}
	for round := range rounds {
		for o, op := range ops {
			for k := range engines {
				i := (k + round) % len(engines)
				if err := all[o][i].add(ctx, engines[i], op); err != nil {
					return fmt.Errorf("%s on %s: %w", op.name, engines[i].name, err)
				}
			}
		}
	}
	for o, op := range ops {
		for i, e := range engines {
			var first *samples
			if i > 0 {
				first = &all[o][0]
			}
			all[o][i].print(table, op.name, e.name, first)
		}
	}
	return nil
}

// samples are the measurements of one operation on one engine, in milliseconds.
type samples struct{ cpu, wall []float64 }

// add measures one round. What the engine still does when it has answered, such as
// tearing down beside the request, is waited for and counted.
func (s *samples) add(ctx context.Context, e *engine, op operation) error {
	before, err := e.settled()
	if err != nil {
		return err
	}
	e.command = 0
	start := time.Now()
	if err := op.once(ctx, e); err != nil {
		return err
	}
	wall := time.Since(start)
	after, err := e.settled()
	if err != nil {
		return err
	}
	s.wall = append(s.wall, ms(wall))
	s.cpu = append(s.cpu, ms(after-before+e.command))
	return nil
}

func (s *samples) print(w *tabwriter.Writer, op, of string, first *samples) {
	fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f", op, of, median(s.cpu), slices.Min(s.cpu), median(s.wall), slices.Min(s.wall))
	if first != nil {
		fmt.Fprintf(w, "\t%s\t%s", proportion(s.cpu, first.cpu), proportion(s.wall, first.wall))
	}
	fmt.Fprintln(w)
}

// proportion is the median of the rounds' own proportions: both sides of one were measured close together.
func proportion(v, first []float64) string {
	r := make([]float64, len(v))
	for i := range v {
		r[i] = v[i] / first[i]
	}
	m := median(r)
	return fmt.Sprintf("%.3f (1/%.1f)", m, 1/m)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// memory prints what the engines' processes hold, idle and with containers running.
func memory(ctx context.Context, engines []*engine, many int) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nmemory of\tidle MiB PSS\twith %d containers\tKiB a container\tprocesses\n", many)
	for _, e := range engines {
		time.Sleep(8 * time.Second)
		idle, _, err := e.pss()
		if err != nil {
			return err
		}
		ids, err := e.runMany(ctx, many)
		if err == nil {
			time.Sleep(8 * time.Second) // for what comes after a start, and for what an idle engine gives back
			var busy, processes int
			if busy, processes, err = e.pss(); err == nil {
				fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%d\n", e.name, mib(idle), mib(busy), float64(busy-idle)/1024/float64(max(many, 1)), processes)
			}
		}
		if rerr := e.removeAll(ctx, ids); rerr != nil && err == nil {
			err = rerr
		}
		if err != nil {
			return fmt.Errorf("memory of %s: %w", e.name, err)
		}
	}
	return table.Flush()
}

func mib(n int) float64 { return float64(n) / (1 << 20) }

// parse splits NAME=SOCKET,CGROUP[,DOCKER].
func parse(arg string) (name, socket, cgroup, docker string, err error) {
	name, rest, ok := strings.Cut(arg, "=")
	socket, rest, ok2 := strings.Cut(rest, ",")
	cgroup, docker, _ = strings.Cut(rest, ",")
	if !ok || !ok2 || name == "" || socket == "" || !strings.HasPrefix(cgroup, "/") {
		return "", "", "", "", fmt.Errorf("%q is not NAME=SOCKET,CGROUP[,DOCKER]", arg)
	}
	return name, socket, cgroup, docker, nil
}
