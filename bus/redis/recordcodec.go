package redis

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"callbox/bus"
)

// place is what a record's seal is bound to.
func place(bucket, key string, r bus.Record) string {
	return fmt.Sprintf("record\x00%s\x00%s\x00%d\x00%d\x00%v", bucket, key, r.Version, r.Expires.UnixMilli(), r.Deleted)
}

func (b *Bus) encodeRecord(bucket, key string, r bus.Record) string {
	kind := "v"
	if r.Deleted {
		kind = "d"
	}
	expires := int64(0)
	if !r.Expires.IsZero() {
		expires = r.Expires.UnixMilli()
	}
	return fmt.Sprintf("%d|%d|%s|%s", r.Version, expires, kind, b.sealer.seal(place(bucket, key, r), r.Value))
}

func (b *Bus) decodeRecord(bucket, key, s string) (bus.Record, error) {
	p := strings.SplitN(s, "|", 4)
	if len(p) != 4 {
		return bus.Record{}, fmt.Errorf("record %s/%s in Redis: malformed", bucket, key)
	}
	r := bus.Record{Deleted: p[2] == "d"}
	version, err := strconv.ParseUint(p[0], 10, 64)
	if err != nil {
		return bus.Record{}, fmt.Errorf("record %s/%s in Redis: version: %w", bucket, key, err)
	}
	r.Version = version
	expires, err := strconv.ParseInt(p[1], 10, 64)
	if err != nil {
		return bus.Record{}, fmt.Errorf("record %s/%s in Redis: expiry: %w", bucket, key, err)
	}
	if expires != 0 {
		r.Expires = time.UnixMilli(expires).UTC()
	}
	value, err := b.sealer.open(place(bucket, key, r), p[3])
	if err != nil {
		return bus.Record{}, fmt.Errorf("record %s/%s: %w", bucket, key, err)
	}
	if !r.Deleted {
		r.Value = value
	}
	return r, nil
}
