package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// Every measurement runs to its end on a small scale. What it measures is nobody's business here.
func TestMeasurementsRun(t *testing.T) {
	testkit.Tool(t, "redis-server")
	if _, err := ownCPU(); err != nil {
		t.Skip(err)
	}
	s := sizes{Seconds: 0.2, Rounds: 1, Idle: 20, Victims: 12, Rate: 200, Nodes: []int{2, 3}, Samples: 5, Watch: 100 * time.Millisecond}
	for _, m := range measurements() {
		t.Run(m.name, func(t *testing.T) {
			figures, err := measure(t.Context(), m, s, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			if len(figures) < 4 {
				t.Errorf("figures: %+v", figures)
			}
			for _, f := range figures {
				if f.Measurement != m.name || f.Name == "" {
					t.Errorf("figure: %+v", f)
				}
			}
		})
	}
}

func TestUnknownMeasurementIsNamed(t *testing.T) {
	err := run(t.Context(), []string{"sideways"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `"sideways"`) {
		t.Errorf("error: %v", err)
	}
}

func TestReport(t *testing.T) {
	all := []figure{
		figure{Measurement: "a", Name: "fits", Value: 3, Unit: "s"}.atMost(3),
		figure{Measurement: "a", Name: "does not", Value: 0.4}.atLeast(0.5),
		{Measurement: "b", Name: "no goal", Value: 12.34, Unit: "µs"},
	}
	var table, list bytes.Buffer
	if err := printTable(&table, all); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"A",
		"  fits      3     s  <= 3    met",
		"  does not  0.40     >= 0.5  MISSED",
		"B",
		"  no goal  12.3  µs",
	}, "\n")
	var lines []string
	for line := range strings.Lines(table.String()) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
	if err := printJSON(&list, all); err != nil {
		t.Fatal(err)
	}
	var back []figure
	if err := json.Unmarshal(list.Bytes(), &back); err != nil || len(back) != 3 || back[1].Met == nil || *back[1].Met || back[2].Met != nil {
		t.Errorf("JSON: %s (%v)", list.String(), err)
	}
}

func TestQuantiles(t *testing.T) {
	all := []float64{5, 1, 4, 2, 3}
	for share, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(all, share); got != want {
			t.Errorf("quantile %v: %v, want %v", share, got, want)
		}
	}
	if got := median([]float64(nil)); got != 0 {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestSequenceOfAMessage(t *testing.T) {
	for text, want := range map[string]uint64{
		`{"type":"signal","seq":1207,"from":"x","data":1}`: 1207,
		`{"type":"pong","received":3}`:                     0,
		`{"type":"x","seq":`:                               0,
	} {
		got, ok := sequence([]byte(text))
		if got != want || ok != (want != 0) {
			t.Errorf("%s: %d %v", text, got, ok)
		}
	}
}
