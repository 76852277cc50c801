// Command bench measures callbox as a cluster: how long a message takes from
// node to node and what it costs, whether that grows with the number of nodes,
// what an idle connection costs, and how long clients need to be back when a
// node dies. It starts real nodes and a real redis-server on this machine.
//
//	go run ./internal/bench [-json] [-seconds 5] [-rounds 3] [across|nodes|idle|kill ...]
//
// It asserts nothing: times on a shared machine are for people to judge. What
// it prints beside a goal says whether the goal was met in this run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"callbox/internal/testkit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// sizes says how much of everything is done.
type sizes struct {
	Seconds float64       // of each load
	Rounds  int           // of each comparison; medians are printed
	Idle    int           // idle connections
	Victims int           // clients of the node that is killed
	Rate    int           // messages a second of the steady loads
	Nodes   []int         // cluster sizes that are compared
	Samples int           // latencies taken of each kind
	Watch   time.Duration // how long idle connections are watched; longer than a ping interval
}

func (s sizes) duration() time.Duration { return time.Duration(s.Seconds * float64(time.Second)) }

// measurement is one thing this program can do.
type measurement struct {
	name string
	run  func(r *rig, s sizes) []figure
}

func measurements() []measurement {
	return []measurement{
		{"across", measureAcross},
		{"nodes", measureNodes},
		{"idle", measureIdle},
		{"kill", measureKill},
	}
}

func run(ctx context.Context, arguments []string, out, diagnostics io.Writer) error {
	s := sizes{Nodes: []int{2, 8, 32}, Watch: 40 * time.Second}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(diagnostics)
	asJSON := flags.Bool("json", false, "print JSON in place of a table")
	flags.Float64Var(&s.Seconds, "seconds", 5, "of each load")
	flags.IntVar(&s.Rounds, "rounds", 3, "of each comparison")
	flags.IntVar(&s.Idle, "idle", 10000, "idle connections")
	flags.IntVar(&s.Victims, "victims", 3000, "clients of the node that is killed")
	flags.IntVar(&s.Rate, "rate", 2000, "messages a second of the steady loads")
	flags.IntVar(&s.Samples, "samples", 2000, "latencies of each kind")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	wanted := flags.Args()
	for _, name := range wanted {
		if !slices.ContainsFunc(measurements(), func(m measurement) bool { return m.name == name }) {
			return fmt.Errorf("no measurement is called %q: there are across, nodes, idle and kill", name)
		}
	}
	if s.Rounds < 1 || s.Seconds <= 0 || s.Samples < 1 || s.Rate < 1 || s.Idle < 2 || s.Victims < 3 {
		return errors.New("every number must be above zero (at least 2 idle connections and 3 victims)")
	}
	defer func() { _ = testkit.RemoveBuilds() }()
	if err := raiseFileLimit(); err != nil {
		fmt.Fprintln(diagnostics, "open files:", err)
	}
	var all []figure
	for _, m := range measurements() {
		if len(wanted) > 0 && !slices.Contains(wanted, m.name) {
			continue
		}
		fmt.Fprintf(diagnostics, "%s ...\n", m.name)
		figures, err := measure(ctx, m, s, diagnostics)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		all = append(all, figures...)
	}
	if *asJSON {
		return printJSON(out, all)
	}
	return printTable(out, all)
}

// measure runs one measurement on a rig of its own.
func measure(ctx context.Context, m measurement, s sizes, diagnostics io.Writer) (figures []figure, err error) {
	r := newRig(ctx, m.name, diagnostics)
	defer func() {
		if failed := r.end(recover()); failed != nil {
			figures, err = nil, failed
		}
	}()
	figures = m.run(r, s)
	for i := range figures {
		figures[i].Measurement = m.name
	}
	return figures, nil
}
