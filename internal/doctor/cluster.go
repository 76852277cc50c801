package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	// slowRedis is what an answer may take before messages between nodes are felt to lag.
	slowRedis = 50 * time.Millisecond
	// least version of Redis.
	redisMajor, redisMinor = 6, 2
)

// Redis is what the bus says of itself.
type Redis struct {
	Solo    bool   // --bus memory
	URL     string // without the password
	Err     error
	Latency time.Duration // the best of several answers
	Version string        // "" where it does not say
	// Policy is maxmemory-policy, Bound maxmemory in bytes (0: none).
	Policy string
	Bound  uint64
	// Persists is how it keeps its data, as "append-only file"; SaveFailed: the last snapshot failed.
	Persists   string
	SaveFailed bool
	Ahead      time.Duration // its clock before ours
}

// redis judges what the nodes share.
func redis(r Redis) Check {
	if r.Solo {
		return skipped(NameRedis, "none is used: one process alone (--bus memory)")
	}
	if r.Err != nil {
		return failure(NameRedis, fmt.Sprintf("%s: %v", r.URL, cause(r.Err)), redisRemedy(r.Err))
	}
	saw := r.URL + " answers in " + brief(r.Latency)
	if r.Version != "" {
		saw += ", version " + r.Version
	}
	switch {
	case r.Version != "" && older(r.Version):
		return failure(NameRedis, saw, fmt.Sprintf("install Redis %d.%d or newer", redisMajor, redisMinor))
	case r.SaveFailed:
		return warning(NameRedis, saw+"; its last snapshot failed, and by default it then refuses to write", "look at Redis' log: mostly its disk is full, or its directory not writable")
	case r.Bound > 0 && r.Policy != "" && r.Policy != "noeviction":
		return warning(NameRedis, fmt.Sprintf("%s; with maxmemory-policy %s it may drop rooms and users when its %s are full", saw, r.Policy, size(r.Bound)),
			"run: redis-cli config set maxmemory-policy noeviction, and write it into redis.conf")
	case r.Latency > slowRedis:
		return warning(NameRedis, saw+": every message between nodes waits that long", "put Redis into the same network as the nodes")
	}
	if r.Policy != "" {
		saw += ", " + r.Policy
	}
	if r.Persists != "" {
		saw += ", " + r.Persists
	}
	return good(NameRedis, saw)
}

func redisRemedy(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "NOAUTH"), strings.Contains(text, "WRONGPASS"):
		return "give user and password in --bus, as redis://user:password@host:6379"
	case strings.Contains(text, "NOPERM"):
		return "give the Redis user the rights that docs/cluster.md lists"
	}
	return "start Redis, let it listen on an address of this network (bind), and let the firewall pass its port"
}

// older says whether a version is below the least one.
func older(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return false
	}
	return major < redisMajor || major == redisMajor && minor < redisMinor
}

// Secret is what the nodes of a cluster share.
type Secret struct {
	Solo bool
	Path string
	Err  error // of reading it
	Len  int   // of its first line, in bytes
	Weak bool  // made of one character or a few
}

// secret judges what seals the cluster.
func secret(s Secret) Check {
	const make = "make one with: openssl rand -base64 32 > cluster-secret; chmod 600 cluster-secret; and give it to every node as --cluster-secret-file"
	switch {
	case s.Solo:
		return skipped(NameSecret, "none is needed: one process alone")
	case s.Err != nil:
		return failure(NameSecret, s.Err.Error(), make)
	case s.Weak:
		return warning(NameSecret, s.Path+" is easily guessed: whoever does signs in as anybody", make)
	}
	return good(NameSecret, fmt.Sprintf("%s, %d bytes, closed to others", s.Path, s.Len))
}

// weak says whether a secret has so few different bytes that it was hardly made by chance.
func weak(secret []byte) bool {
	seen := map[byte]bool{}
	for _, b := range secret {
		seen[b] = true
	}
	return len(seen) < 8
}
