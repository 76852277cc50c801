package cli

import (
	"path/filepath"
	"strings"
	"testing"

	"callbox/internal/doctor"
	"callbox/internal/testkit"
)

// TestDoctorExaminesRedis: a real one, well, about to drop keys, closed and gone.
func TestDoctorExaminesRedis(t *testing.T) {
	redis := testkit.Redis(t)
	file := filepath.Join(t.TempDir(), "cluster-secret")
	writeFile(t, file, "bG9uZyBlbm91Z2ggdG8gYmUgYSBzZWNyZXQ=\n")
	examine := func(url string) doctor.Report {
		r := callbox(t, "", "doctor", "--json", "--data", filepath.Join(dataDir(t), "data"), "--listen", "127.0.0.1:0", "--bus", url, "--cluster-secret-file", file)
		return decode[doctor.Report](t, r.stdout)
	}
	expect := func(r doctor.Report, name string, verdict doctor.Verdict, saw, remedy string) {
		t.Helper()
		if c := named(t, r, name); c.Verdict != verdict || !strings.Contains(c.Saw, saw) || !strings.Contains(c.Remedy, remedy) {
			t.Errorf("%+v, want %s with %q and %q", c, verdict, saw, remedy)
		}
	}
	do := func(arguments ...string) {
		t.Helper()
		if _, err := redis.Do(arguments...); err != nil {
			t.Fatal(err)
		}
	}

	well := examine(redis.URL())
	expect(well, doctor.NameRedis, doctor.OK, "noeviction", "")
	expect(well, doctor.NameClock, doctor.OK, "of Redis", "") // the clock is the same
	expect(well, doctor.NameSecret, doctor.OK, "bytes, closed to others", "")
	expect(well, doctor.NameRelayUDP, doctor.OK, "there and back", "")

	do("CONFIG", "SET", "maxmemory", "100mb")
	do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	expect(examine(redis.URL()), doctor.NameRedis, doctor.Warn, "maxmemory-policy allkeys-lru", "noeviction")

	do("CONFIG", "SET", "requirepass", "open sesame")
	closed := examine(redis.URL())
	expect(closed, doctor.NameRedis, doctor.Fail, "NOAUTH", "redis://user:password@")
	expect(closed, doctor.NameServer, doctor.Fail, "does not start", "")

	redis.Kill()
	gone := examine("redis://:hidden@" + redis.Addr)
	expect(gone, doctor.NameRedis, doctor.Fail, "connection refused", "start Redis")
	for _, c := range gone.Checks {
		if strings.Contains(c.Saw+c.Remedy, "hidden") {
			t.Errorf("tells the password: %+v", c)
		}
	}
}
