package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Examination is what a Redis says of itself. What it keeps to itself, as a rented one may, is zero.
type Examination struct {
	Text       string        // the address, without the password
	Latency    time.Duration // the best of a few answers
	Ahead      time.Duration // its clock before ours, as exact as Latency
	Version    string
	MaxMemory  uint64 // bytes; 0: no bound
	Eviction   string // maxmemory-policy
	AppendOnly bool   // writes an append-only file
	SaveFailed bool   // the last snapshot failed
}

// pings is how often Redis is asked the time.
const pings = 5

// Examine connects to the Redis of a bus URL, asks, and hangs up. It changes nothing there. Of a cluster or behind Sentinel
// one server is asked.
func Examine(ctx context.Context, url string) (Examination, error) {
	t, err := parseURL(url)
	if err != nil {
		return Examination{}, err
	}
	e := Examination{Text: t.text}
	opens := &opening{ctx: ctx, next: dialRedis}
	t.option.DialCtxFn = opens.dial
	client, err := rueidis.NewClient(t.option)
	if err != nil {
		return e, fmt.Errorf("no answer: %w", err)
	}
	defer client.Close()
	opens.done()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for range pings {
		sent := time.Now()
		parts, err := client.Do(ctx, client.B().Time().Build()).AsStrSlice()
		if err != nil {
			return e, err
		}
		took := time.Since(sent)
		now, err := redisTime(parts)
		if err != nil {
			return e, err
		}
		if e.Latency == 0 || took < e.Latency {
			e.Latency, e.Ahead = took, now.Sub(sent.Add(took/2))
		}
	}
	for _, section := range []string{"server", "memory", "persistence"} {
		text, err := client.Do(ctx, client.B().Info().Section(section).Build()).ToString()
		if err != nil {
			var refused *rueidis.RedisError
			if errors.As(err, &refused) {
				continue // an ACL may keep it from us
			}
			return e, err
		}
		e.read(text)
	}
	return e, nil
}

func redisTime(parts []string) (time.Time, error) {
	if len(parts) != 2 {
		return time.Time{}, fmt.Errorf("time: %d parts", len(parts))
	}
	seconds, err1 := strconv.ParseInt(parts[0], 10, 64)
	micros, err2 := strconv.ParseInt(parts[1], 10, 64)
	return time.Unix(seconds, micros*1000), errors.Join(err1, err2)
}

// read takes what it knows from an answer to INFO.
func (e *Examination) read(info string) {
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "redis_version":
			e.Version = value
		case "maxmemory":
			e.MaxMemory, _ = strconv.ParseUint(value, 10, 64)
		case "maxmemory_policy":
			e.Eviction = value
		case "aof_enabled":
			e.AppendOnly = value == "1"
		case "rdb_last_bgsave_status":
			e.SaveFailed = value == "err"
		}
	}
}
