package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// target is what a --bus URL names.
type target struct {
	option  rueidis.ClientOption
	cluster bool
	text    string // for messages: without the password
}

var errURL = errors.New("bus URL: want redis://[user:password@]host[:port][/db], rediss:// (TLS), " +
	"redis+sentinel://host:port,host:port/master or redis+cluster://host:port,host:port (rediss+... with TLS)")

// parseURL understands redis, rediss, redis+sentinel, redis+cluster and their
// rediss+ variants. Query: db, ca (PEM file with the authorities to trust),
// sentinel_user, sentinel_password.
func parseURL(raw string) (target, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return target{}, errURL
	}
	base, kind, _ := strings.Cut(strings.ToLower(scheme), "+")
	if base != "redis" && base != "rediss" || kind != "" && kind != "sentinel" && kind != "cluster" {
		return target{}, fmt.Errorf("scheme %q: %w", scheme, errURL)
	}
	// The list of hosts is taken out by hand: it is no URL host.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	userinfo, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo, hosts = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse(base + "://" + userinfo + "host" + tail)
	if err != nil {
		// Its text would repeat the password.
		return target{}, errURL
	}
	t := target{cluster: kind == "cluster"}
	port := "6379"
	if kind == "sentinel" {
		port = "26379"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		address, err := hostPort(host, port)
		if err != nil {
			return target{}, err
		}
		t.option.InitAddress = append(t.option.InitAddress, address)
	}
	if len(t.option.InitAddress) > 1 && kind == "" {
		return target{}, fmt.Errorf("several hosts need redis+sentinel:// or redis+cluster://: %w", errURL)
	}
	t.text = scheme + "://" + strings.Join(t.option.InitAddress, ",")
	if u.User != nil {
		t.option.Username = u.User.Username()
		t.option.Password, _ = u.User.Password()
	}
	query := u.Query()
	if err := t.selectDB(kind, strings.Trim(u.Path, "/"), query); err != nil {
		return target{}, err
	}
	if base == "rediss" {
		if t.option.TLSConfig, err = tlsConfig(t.option.InitAddress[0], query.Get("ca")); err != nil {
			return target{}, err
		}
		t.option.Sentinel.TLSConfig = t.option.TLSConfig
	}
	t.option.Sentinel.Username = query.Get("sentinel_user")
	t.option.Sentinel.Password = query.Get("sentinel_password")
	for name := range query {
		switch name {
		case "db", "ca", "sentinel_user", "sentinel_password":
		default:
			return target{}, fmt.Errorf("unknown parameter %q: %w", name, errURL)
		}
	}

	t.option.ForceSingleClient = kind == ""
	t.option.DisableRetry = true // what is tried again is decided here
	t.option.DisableCache = true
	t.option.PipelineMultiplex = -1 // one connection
	t.option.ReadBufferEachConn = 64 << 10
	t.option.WriteBufferEachConn = 64 << 10
	t.option.ClientName = "callbox"
	t.option.Dialer = net.Dialer{Timeout: ioTimeout, KeepAlive: time.Second}
	t.option.Sentinel.Dialer = t.option.Dialer
	t.option.ConnWriteTimeout = ioTimeout
	return t, nil
}

func (t *target) selectDB(kind, path string, query url.Values) error {
	if kind == "sentinel" {
		if path == "" {
			return fmt.Errorf("the name of the master is missing: %w", errURL)
		}
		t.option.Sentinel.MasterSet = path
		path = ""
	}
	if query.Has("db") {
		path = query.Get("db")
	}
	if path == "" {
		return nil
	}
	db, err := strconv.Atoi(path)
	if err != nil || db < 0 {
		return fmt.Errorf("database %q is no number: %w", path, errURL)
	}
	if kind == "cluster" && db != 0 {
		return fmt.Errorf("a Redis Cluster has database 0 only: %w", errURL)
	}
	t.option.SelectDB = db
	return nil
}

func hostPort(s, port string) (string, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		host, p = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), port
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
		return "", fmt.Errorf("host %q: %w", s, errURL)
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /") {
		return "", fmt.Errorf("host %q: %w", s, errURL)
	}
	return net.JoinHostPort(host, p), nil
}

func tlsConfig(address, caFile string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("bus URL: ca file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("bus URL: ca file %s has no certificate in it", caFile)
	}
	return c, nil
}
