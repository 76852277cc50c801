package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"callbox/internal/config"
)

func TestHelpNamesEverySubcommandAndSetting(t *testing.T) {
	out := ok(t, "", "--help")
	for _, name := range []string{"serve", "user add", "user list", "user passwd", "user remove", "key add", "key list", "key remove", "token", "credential", "reload", "config", "version", "healthcheck", "--data", "--config"} {
		if !strings.Contains(out, "  "+name) {
			t.Errorf("help does not name %s", name)
		}
	}
	serve, shown := ok(t, "", "serve", "--help"), ok(t, "", "config", "--help")
	text, err := config.Default().JSON()
	if err != nil {
		t.Fatal(err)
	}
	for name := range decode[map[string]any](t, string(text)) {
		flag := regexp.MustCompile("--" + name + "[= ]") // a switch stands without a value
		if !flag.MatchString(serve) || !flag.MatchString(shown) {
			t.Errorf("--%s is not in the help of serve and config", name)
		}
	}
	if !strings.Contains(serve, "(49152-65535)") {
		t.Error("help does not say the defaults")
	}
	if reload := ok(t, "", "reload", "--help"); !strings.Contains(reload, "public-ip") || strings.Contains(reload, "realm") {
		t.Errorf("help does not say what can change: %s", reload)
	}
}

func TestWrongCommandLinesEndWithStatus2(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"bogus"}, "unexpected argument bogus"},
		{[]string{"user"}, `"passwd"`},
		{[]string{"user", "add"}, "<name>"},
		{[]string{"user", "list", "--jsom"}, `did you mean "--json"`},
		{[]string{"token", "--room", "r"}, "--user"},
		{[]string{"token", "--room", "r", "--user", "u", "--ttl", "soon"}, "--ttl"},
		{[]string{"token", "--room", "r", "--user", "u", "--ttl", "0s"}, "--ttl must be"},
		{[]string{"token", "--room", "r", "--user", "u", "--key", ".x"}, "--key"},
		{[]string{"credential", "--user", ""}, "--user"},
		{[]string{"healthcheck", "--url", "ftp://x"}, "--url"},
		{[]string{"user", "list", "--listen", ":1"}, "unknown flag --listen"},
		{[]string{"--listen"}, "is empty"},
	} {
		fails(t, exitUsage, c.want, c.args...)
	}
}

func TestEveryFaultOfAServersCommandLineIsNamed(t *testing.T) {
	dir := filepath.Join(dataDir(t), "never made")
	for _, first := range [][]string{{}, {"serve"}} {
		r := runWith(t, Env{Environ: []string{"CALLBOX_TURN_TTL=never"}}, append(first, "--data", dir, "--lisen", ":1", "--relay-ports=9-1", "--max-peers", "x")...)
		for _, want := range []string{"lisen (--lisen): is not a setting; did you mean --listen?", "relay-ports (--relay-ports)", "max-peers (--max-peers)", "turn-ttl (CALLBOX_TURN_TTL)"} {
			if r.status != exitUsage || !strings.Contains(r.stderr, want) {
				t.Errorf("status %d, %q lacks %q", r.status, r.stderr, want)
			}
		}
	}
	r := runWith(t, Env{}, "serve", "--data", dir, "--max-peers", "1", "--realm", "\"")
	if r.status != exitUsage || strings.Count(r.stderr, "\n  ") != 2 {
		t.Errorf("status %d, %q", r.status, r.stderr)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the data directory was made")
	}
}

func TestEveryFaultyFileIsNamedWithTheOtherFaultsBeforeAnythingIsMade(t *testing.T) {
	at := t.TempDir()
	dir, short, empty := filepath.Join(at, "never made"), filepath.Join(at, "short"), filepath.Join(at, "empty")
	writeFile(t, short, "a secret of sufficient length\nshort\n")
	writeFile(t, empty, "")
	files := []string{"--turn-secret-file", "/nope", "--cluster-secret-file", short, "--tls-cert", empty, "--data", dir}
	wants := []string{
		"turn-secret-file (--turn-secret-file): “/nope” does not exist; make one with: openssl rand",
		"cluster-secret-file (--cluster-secret-file): “" + short + ":2” is a secret shorter than 16 bytes; make one with",
	}
	env := Env{Environ: []string{"CALLBOX_TLS_KEY=" + at, "CALLBOX_MAX_PEERS=1"}}
	for _, first := range [][]string{{}, {"serve"}, {"serve", "--lisen", ":1"}} {
		r := runWith(t, env, append(first, files...)...)
		for _, want := range append(wants, "tls-cert (--tls-cert): “"+empty+"” holds no certificate in PEM form; give", "tls-key (CALLBOX_TLS_KEY): “"+at+"” is not a regular file; give", "max-peers (CALLBOX_MAX_PEERS)") {
			if r.status != exitUsage || !strings.Contains(r.stderr, want) {
				t.Errorf("%v: status %d, %q lacks %q", first, r.status, r.stderr, want)
			}
		}
	}
	// Other commands need the secrets, and only where no server runs.
	for _, command := range [][]string{{"user", "add", "ada", "--password-stdin"}, {"credential", "--user", "ada"}} {
		r := runWith(t, Env{Stdin: strings.NewReader("a good password\n"), Environ: []string{"CALLBOX_TURN_SECRET_FILE=/nope", "CALLBOX_TLS_CERT=/nope", "CALLBOX_TLS_KEY=/nope"}}, append(command, "--data", dir)...)
		if r.status != exitUsage || !strings.Contains(r.stderr, "turn-secret-file (CALLBOX_TURN_SECRET_FILE): “/nope” does not exist") || strings.Contains(r.stderr, "tls-") {
			t.Errorf("%v: status %d, %q", command, r.status, r.stderr)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the data directory was made")
	}
	r := runWith(t, Env{}, "serve", "--bus", "redis://127.0.0.1:1", "--tls-cert", "/nope", "--tls-key", "/nope", "--data", dir)
	for _, want := range []string{"bus (--bus): ", "openssl rand -base64 32 > cluster-secret", "tls-cert (--tls-cert): ", "tls-key (--tls-key): "} {
		if r.status != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("a node without a secret: status %d, %q lacks %q", r.status, r.stderr, want)
		}
	}
}

func TestConfigShowsValuesAndSources(t *testing.T) {
	file := filepath.Join(dataDir(t), "callbox.yaml")
	if err := os.WriteFile(file, []byte("max-peers: 12\nice-server: [\"turn:t.example,user,hunter2\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := Env{Environ: []string{"CALLBOX_REALM=env.example"}}
	r := runWith(t, env, "config", "--config", file, "--listen", ":9")
	for _, want := range []string{"listen: :9 # flag", "realm: env.example # CALLBOX_REALM", "max-peers: 12 # " + file + ":1", "user-quota: 100 # default", "xxxxx"} {
		if r.status != exitOK || !strings.Contains(r.stdout, want) {
			t.Errorf("status %d, lacks %q:\n%s", r.status, want, r.stdout)
		}
	}
	j := runWith(t, env, "--config", file, "config", "--json")
	if object := decode[map[string]any](t, j.stdout); object["realm"] != "env.example" || object["max-peers"] != 12.0 {
		t.Errorf("got %v", object)
	}
	if strings.Contains(r.stdout+j.stdout, "hunter2") {
		t.Error("a secret is shown")
	}
}

func TestVersion(t *testing.T) {
	v := decode[versionInfo](t, ok(t, "", "version", "--json"))
	if v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("got %+v", v)
	}
	if out := ok(t, "", "version"); !strings.HasPrefix(out, "callbox "+v.Version) || strings.Count(out, "\n") != 1 {
		t.Errorf("got %q", out)
	}
}

func TestASwitchNeedsNoValue(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "off"},
		{[]string{"--compat-open"}, "on"},
		{[]string{"--compat-open", "--realm", "r"}, "on"},
		{[]string{"--compat-open=off"}, "off"},
		{[]string{"--compat-open=on"}, "on"},
	} {
		out := ok(t, "", append([]string{"config", "--json", "--compat", "peerjs"}, c.args...)...)
		if got := decode[map[string]any](t, out)["compat-open"]; got != c.want {
			t.Errorf("%q: %v", c.args, got)
		}
	}
}
