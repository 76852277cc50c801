package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/bus"
	"callbox/bus/bustest"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url, addresses, user, password, master string
		db                                     int
		cluster, tls, single                   bool
	}{
		{url: "redis://localhost", addresses: "localhost:6379", single: true},
		{url: "redis://10.0.0.1:7000/3", addresses: "10.0.0.1:7000", db: 3, single: true},
		{url: "redis://:pa%40ss@h:1?db=2", addresses: "h:1", password: "pa@ss", db: 2, single: true},
		{url: "rediss://bob:secret@[::1]:6380", addresses: "[::1]:6380", user: "bob", password: "secret", tls: true, single: true},
		{url: "redis+sentinel://a,b:2/main", addresses: "a:26379 b:2", master: "main"},
		{url: "rediss+sentinel://u:p@a:1,b:2/main?db=4", addresses: "a:1 b:2", user: "u", password: "p", master: "main", db: 4, tls: true},
		{url: "redis+cluster://a:1,b:2,[fd00::1]:3", addresses: "a:1 b:2 [fd00::1]:3", cluster: true},
	} {
		got, err := parseURL(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		o := got.option
		if strings.Join(o.InitAddress, " ") != c.addresses || o.Username != c.user || o.Password != c.password ||
			o.Sentinel.MasterSet != c.master || o.SelectDB != c.db || got.cluster != c.cluster ||
			(o.TLSConfig != nil) != c.tls || o.ForceSingleClient != c.single {
			t.Errorf("%s: %+v", c.url, got)
		}
		if c.password != "" && strings.Contains(got.text, c.password) {
			t.Errorf("%s: its text for messages has the password", c.url)
		}
	}
	for _, bad := range []string{
		"", "localhost:6379", "http://h", "redis://", "redis://h:x", "redis://h:70000", "redis://a,b", "redis://h/x",
		"redis+sentinel://a", "redis+cluster://a/3", "redis://h?tls=1", "redis://h:1:2", "redis://u:pw%zz@h", "rediss://h?ca=/does/not/exist",
	} {
		got, err := parseURL(bad)
		if err == nil {
			t.Errorf("%q was taken for %+v", bad, got)
		} else if strings.Contains(err.Error(), "pw%zz") {
			t.Errorf("%q: the error repeats the password: %v", bad, err)
		}
	}
}

func TestUnreachableRedisIsAnErrorWithARemedy(t *testing.T) {
	started := time.Now()
	_, err := Open(context.Background(), Config{URL: "redis://u:secret@127.0.0.1:1", Name: "a"})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "start Redis") || strings.Contains(err.Error(), "secret") {
		t.Errorf("open: %v; want the address and the remedy, without the password", err)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func FuzzFrame(f *testing.F) {
	whole := frame{flags: flagProbe, from: "a.b", term: 1, stream: 2, base: 3, first: 4, ackStream: 5, ack: 6, messages: [][]byte{[]byte("x"), {}}}
	f.Add(string(whole.append(nil)))
	f.Add("")
	f.Add("\x01\x00\x03a.b\x01\x01\x01\x01\x01\x01\xff\xff\xff\xff\x0f")
	f.Fuzz(func(t *testing.T, data string) {
		got, err := parseFrame(data)
		if err != nil {
			return
		}
		again, err := parseFrame(string(got.append(nil)))
		if err != nil {
			t.Fatalf("%+v written and read: %v", got, err)
		}
		if again.from != got.from || again.flags != got.flags || again.term != got.term || again.stream != got.stream ||
			again.base != got.base || again.first != got.first || again.ackStream != got.ackStream || again.ack != got.ack ||
			!slices.EqualFunc(again.messages, got.messages, bytes.Equal) {
			t.Fatalf("%+v became %+v", got, again)
		}
	})
}

func TestSealedValuesAreBoundToPlaceAndSecret(t *testing.T) {
	one, err := newSealer([]byte("the secret of the cluster"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newSealer([]byte("the secret of another cluster"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := one.seal("here", []byte("value"))
	if strings.Contains(sealed, "value") {
		t.Error("a sealed value is readable")
	}
	if got, err := one.open("here", sealed); err != nil || string(got) != "value" {
		t.Errorf("opened: %q, %v", got, err)
	}
	broken := []byte(sealed)
	broken[len(broken)-1] ^= 1
	plain := sealer{}.seal("here", []byte("value"))
	for name, try := range map[string]func() ([]byte, error){
		"in another place":          func() ([]byte, error) { return one.open("there", sealed) },
		"with another secret":       func() ([]byte, error) { return other.open("here", sealed) },
		"without a secret":          func() ([]byte, error) { return sealer{}.open("here", sealed) },
		"changed":                   func() ([]byte, error) { return one.open("here", string(broken)) },
		"plain, though it is to be": func() ([]byte, error) { return one.open("here", plain) },
		"empty":                     func() ([]byte, error) { return one.open("here", "") },
	} {
		if got, err := try(); !errors.Is(err, errSealed) {
			t.Errorf("opened %s: %q, %v", name, got, err)
		}
	}
	if _, err := newSealer([]byte("short")); err == nil {
		t.Error("a secret of five bytes was accepted")
	}
}

func TestOtherClusterSecretIsRefusedAtOpen(t *testing.T) {
	s := startServer(t)
	url := "redis://" + s.address()
	a, err := Open(context.Background(), Config{URL: url, Name: "a", Secret: []byte("the secret of the cluster")})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	put := func([]byte) ([]byte, time.Duration, error) { return []byte("readable"), 0, nil }
	if err := a.Update(context.Background(), "users", "u", put); err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{nil, []byte("the secret of another cluster")} {
		b, err := Open(context.Background(), Config{URL: url, Name: "b", Secret: secret})
		if err == nil {
			b.Close()
		}
		if !errors.Is(err, errSealed) {
			t.Errorf("open with secret %q: %v, want the error that names the remedy", secret, err)
		}
	}
	raw, err := a.pub.Do(context.Background(), a.pub.B().Hget().Key(a.keys.bucket("users")).Field("u").Build()).ToString()
	if err != nil || strings.Contains(raw, "readable") {
		t.Errorf("in Redis the record is %q, %v", raw, err)
	}
}

func TestEveryKeyExpires(t *testing.T) {
	s := startServer(t)
	ctx := context.Background()
	b, _ := openLedger(t, "redis://"+s.address(), "a")
	g, err := b.Claim(ctx, bus.Claim{Peer: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Locate(ctx, "nobody", time.Second); !errors.Is(err, bus.ErrNotFound) {
		t.Fatal(err)
	}
	put := func([]byte) ([]byte, time.Duration, error) { return []byte("v"), 0, nil }
	if err := b.Update(ctx, "users", "u", put); err != nil {
		t.Fatal(err)
	}
	keys, err := b.pub.Do(ctx, b.pub.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil || len(keys) != 7 {
		t.Fatalf("keys %q, %v", keys, err)
	}
	for _, key := range keys {
		ttl, err := b.pub.Do(ctx, b.pub.B().Pttl().Key(key).Build()).AsInt64()
		if err != nil || ttl <= 0 || !strings.HasPrefix(key, "callbox:") {
			t.Errorf("%s lives %d ms, %v", key, ttl, err)
		}
	}
}

func TestRecordsPastTheirTimeLeaveRedisAndAreNotWrittenAgain(t *testing.T) {
	s := startServer(t)
	ctx := context.Background()
	a, _ := openLedger(t, "redis://"+s.address(), "a")
	put := func(key string, ttl time.Duration) {
		t.Helper()
		if err := a.Update(ctx, "users", key, func([]byte) ([]byte, time.Duration, error) { return []byte("v"), ttl, nil }); err != nil {
			t.Fatal(err)
		}
	}
	put("short", 20*time.Millisecond)
	put("long", time.Hour)
	put("ever", 0)
	there := func() int64 {
		n, err := a.pub.Do(ctx, a.pub.B().Hlen().Key(a.keys.bucket("users")).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	bustest.Eventually(t, 5*time.Second, "the record to end", func() bool {
		all, err := a.Load(ctx, "users")
		return err == nil && len(all) == 2
	})
	put("ever", 0) // a write leaves out what is over
	if _, err := a.Load(ctx, "users"); err != nil {
		t.Fatal(err)
	}
	if r, there := a.store.Get("users", "short"); there {
		t.Errorf("a record past its time was taken from Redis again: %+v", r)
	}
	if n := there(); n != 3 {
		t.Fatalf("%d records in Redis, want 3", n)
	}
	if err := a.dropRecords(ctx, a.redisNow()); err != nil {
		t.Fatal(err)
	}
	if n := there(); n != 2 {
		t.Errorf("%d records in Redis after the sweep, want 2", n)
	}
}

func TestLookupOfNobodyIsOneStepAndBounded(t *testing.T) {
	s := startServer(t)
	ctx := context.Background()
	a, _ := openLedger(t, "redis://"+s.address(), "a")
	calls := func(command string) (n int) {
		t.Helper()
		info, err := a.pub.Do(ctx, a.pub.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, there := strings.Cut(info, "cmdstat_"+command+":calls="); there {
			if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	// Only the scripts of the directory use HMGET, each once.
	before := calls("hmget")
	for range 10 {
		if _, _, err := a.Locate(ctx, "nobody", time.Hour); !errors.Is(err, bus.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := calls("hmget") - before; n != 10 {
		t.Errorf("10 lookups ran %d scripts", n)
	}
	if n := calls("publish"); n > 1 { // of the node's own arrival
		t.Errorf("%d publications: others were asked", n)
	}
	entry, waiting := a.keys.peer("nobody")
	if n, err := a.pub.Do(ctx, a.pub.B().Zcard().Key(waiting).Build()).AsInt64(); err != nil || n != 1 {
		t.Errorf("%d waiting, %v; want this node once", n, err)
	}
	if ttl, err := a.pub.Do(ctx, a.pub.B().Pttl().Key(waiting).Build()).AsInt64(); err != nil || ttl > bus.MaxWait.Milliseconds() {
		t.Errorf("an hour's wait is kept for %d ms, %v", ttl, err)
	}
	for i := range 2 * bus.MaxWaiting {
		err := a.scripts.locate.Exec(ctx, a.pub, []string{entry, waiting},
			[]string{"\n", "\n", fmt.Sprint("node", i), "60000", fmt.Sprint(bus.MaxWaiting)}).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
	if n, err := a.pub.Do(ctx, a.pub.B().Zcard().Key(waiting).Build()).AsInt64(); err != nil || n != bus.MaxWaiting {
		t.Errorf("%d wait for one peer, %v; want at most %d", n, err, bus.MaxWaiting)
	}
}

func TestLossOfSingleEntriesIsTold(t *testing.T) {
	s := startServer(t)
	ctx := context.Background()
	a, la := openLedger(t, "redis://"+s.address(), "a")
	g, err := a.Claim(ctx, bus.Claim{Peer: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
		t.Fatal(err)
	}
	entry, _ := a.keys.peer("p")
	for _, key := range []string{entry, a.keys.room("r")} {
		la.mu.Lock()
		before := len(la.links)
		la.mu.Unlock()
		if err := a.pub.Do(ctx, a.pub.B().Del().Key(key).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, 30*time.Second, "the loss of "+key+" to be told", func() bool {
			la.mu.Lock()
			defer la.mu.Unlock()
			return len(la.links) >= before+2 && la.links[len(la.links)-1]
		})
		if g, err = a.Claim(ctx, bus.Claim{Peer: "p", Held: g.Epoch}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Join(ctx, "r", bus.Member{Peer: "p", Epoch: g.Epoch}, 0); err != nil {
			t.Fatal(err)
		}
	}
}
