package cli

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"callbox/internal/doctor"
)

// named finds a check in a report.
func named(t *testing.T, r doctor.Report, name string) doctor.Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %q in %+v", name, r)
	}
	return r.Checks[i]
}

// TestDoctorStartsWhatItNeeds: nothing runs and nothing is there; afterwards nothing is left.
func TestDoctorStartsWhatItNeeds(t *testing.T) {
	dir := filepath.Join(dataDir(t), "data")
	report := decode[doctor.Report](t, ok(t, "", "doctor", "--json", "--data", dir, "--listen", "127.0.0.1:0"))
	for _, name := range []string{doctor.NameListening, doctor.NameSTUN, doctor.NameRelayUDP, doctor.NameRelayTCP, doctor.NameRelayTLS, doctor.NameData} {
		if c := named(t, report, name); c.Verdict != doctor.OK {
			t.Errorf("%+v", c)
		}
	}
	if c := named(t, report, doctor.NameServer); !strings.Contains(c.Saw, "no server ran here") {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data directory was made: %v", err)
	}
}

// TestDoctorAsksTheRunningServer, whose settings are its own.
func TestDoctorAsksTheRunningServer(t *testing.T) {
	dir := dataDir(t)
	startServer(t, dir, "--relay-ports", "none", "--realm", "its own", "--public-ip", "203.0.113.9", "--user-quota", "1", "--doctor-every", "0s")
	for _, args := range [][]string{{}, {"--realm", "another", "--listen", "127.0.0.1:1"}} {
		report := decode[doctor.Report](t, ok(t, "", append([]string{"doctor", "--json", "--data", dir}, args...)...))
		if c := named(t, report, doctor.NameServer); !strings.Contains(c.Saw, "runs as node") {
			t.Errorf("%+v", c)
		}
		if c := named(t, report, doctor.NameRelayTCP); c.Verdict != doctor.OK {
			t.Errorf("%+v", c)
		}
	}
}

// TestDoctorFindsThePortInUse: the status says that there is a fault, and the table whose.
func TestDoctorFindsThePortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := callbox(t, "", "doctor", "--data", dataDir(t), "--listen", l.Addr().String())
	if r.status != exitFault || !strings.Contains(r.stdout, "in use by") || !strings.Contains(r.stderr, "server, listening") {
		t.Errorf("%+v", r)
	}
	report := decode[doctor.Report](t, callbox(t, "", "doctor", "--json", "--data", dataDir(t), "--listen", l.Addr().String()).stdout)
	if c := named(t, report, doctor.NameRelayUDP); c.Verdict != doctor.Skipped {
		t.Errorf("%+v", c)
	}
}

func TestDoctorReportsFaultySettings(t *testing.T) {
	dir := dataDir(t)
	r := callbox(t, "", "doctor", "--data", dir, "--relay-ports", "9-1", "--public-ip", "home")
	if r.status != exitUsage || !strings.Contains(r.stderr, "relay-ports") || !strings.Contains(r.stderr, "public-ip") {
		t.Errorf("%+v", r)
	}
}

// TestDoctorTableFitsTheTerminal in 80 columns, with colours only for a person who wants them.
func TestDoctorTableFitsTheTerminal(t *testing.T) {
	report := doctor.Report{Checks: []doctor.Check{
		{Name: "listening", Saw: "answers on TCP [::]:8080", Verdict: doctor.OK},
		{Name: "file descriptors", Saw: strings.Repeat("many words ", 20), Verdict: doctor.Warn, Remedy: strings.Repeat("do something ", 20)},
		{Name: "DNS", Saw: "two\nlines", Verdict: doctor.Fail, Remedy: "mend it"},
	}}
	plain := doctorTable(report, colours{})
	for line := range strings.Lines(plain) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.Contains(line, "\x1b") {
			t.Errorf("a colour: %q", line)
		}
	}
	if !strings.Contains(plain, "-> mend it") || !strings.Contains(plain, "two lines") || !strings.HasSuffix(plain, "\n1 ok, 1 warn, 1 fail, 0 skipped\n") {
		t.Error(plain)
	}
	for _, tc := range []struct {
		env   Env
		wants bool
	}{
		{Env{Terminal: true}, true},
		{Env{}, false},
		{Env{Terminal: true, Environ: []string{"NO_COLOR=1"}}, false},
		{Env{Terminal: true, Environ: []string{"TERM=dumb"}}, false},
	} {
		painted := doctorTable(report, (&call{Env: tc.env}).colours())
		if strings.Contains(painted, "\x1b[") != tc.wants {
			t.Errorf("%+v: %q", tc.env, painted)
		}
	}
}

// TestDoctorShowsProgress to a person, on the line where the table begins afterwards.
func TestDoctorShowsProgress(t *testing.T) {
	var out, errs buffer
	env := Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Terminal: true}
	if status := Run(t.Context(), []string{"doctor", "--data", dataDir(t), "--listen", "127.0.0.1:0"}, env); status != exitOK {
		t.Fatalf("%d %s", status, errs.String())
	}
	if said := errs.String(); !strings.Contains(said, "/21] relay over TLS…") || !strings.HasSuffix(said, "\r") {
		t.Errorf("%q", said)
	}
}

// TestDoctorShowsTheLinkForAPhone as a QR code too, where it fits. A server is started for it, and ends with the command.
func TestDoctorShowsTheLinkForAPhone(t *testing.T) {
	for _, tc := range []struct {
		lines int
		code  bool
	}{{60, true}, {20, false}} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs buffer
		env := Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Terminal: true, Size: func() (int, int) { return 100, tc.lines }}
		ended := make(chan int, 1)
		go func() {
			ended <- Run(ctx, []string{"doctor", "--phone", "--data", filepath.Join(dataDir(t), "data"), "--listen", "127.0.0.1:0"}, env)
		}()
		waitFor(t, func() bool {
			said := out.String()
			return strings.Contains(said, "https://127.0.0.1:") && (!tc.code || strings.Contains(said, "\x1b[0m\n"))
		})
		cancel()
		if status := <-ended; status != exitFault || !strings.Contains(errs.String(), "before the phone had tried everything") {
			t.Errorf("%d %s", status, errs.String())
		}
		if said := out.String(); strings.ContainsRune(said, '█') != tc.code || !strings.Contains(said, "Wi-Fi switched off") {
			t.Errorf("%s", said)
		}
	}
}
