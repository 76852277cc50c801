package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the report.
type figure struct {
	Measurement string  `json:"measurement"`
	Name        string  `json:"name"`
	Value       float64 `json:"value"`
	Unit        string  `json:"unit"`
	Goal        string  `json:"goal,omitempty"` // as "<= 150"; empty where there is none
	Met         *bool   `json:"met,omitempty"`
}

// atMost and atLeast set a goal.
func (f figure) atMost(limit float64) figure {
	met := f.Value <= limit
	f.Goal, f.Met = fmt.Sprintf("<= %g", limit), &met
	return f
}

func (f figure) atLeast(limit float64) figure {
	met := f.Value >= limit
	f.Goal, f.Met = fmt.Sprintf(">= %g", limit), &met
	return f
}

func printJSON(w io.Writer, all []figure) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

func printTable(w io.Writer, all []figure) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	measurement := ""
	for _, f := range all {
		if f.Measurement != measurement {
			measurement = f.Measurement
			fmt.Fprintf(t, "%s\n", strings.ToUpper(measurement))
		}
		verdict := ""
		if f.Met != nil {
			verdict = "met"
			if !*f.Met {
				verdict = "MISSED"
			}
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Value), f.Unit, f.Goal, verdict)
	}
	return t.Flush()
}

func number(v float64) string {
	switch {
	case v >= 1000 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// quantile returns the value that the given share of all does not exceed; 0 for nothing.
func quantile[T ~int64 | ~float64](all []T, share float64) T {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

func median[T ~int64 | ~float64](all []T) T { return quantile(all, 0.5) }

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
