package redis

import (
	"strconv"
	"strings"
	"time"

	"callbox/bus"
)

// keys makes the names of keys and channels. What one script touches shares a
// hash tag, so that it lies on one node of a Redis Cluster.
type keys struct{ prefix string }

// How long keys stay that nobody touches.
const (
	entryTTL  = time.Hour // peers and rooms; touched while this process lives
	nodesTTL  = time.Minute
	recordTTL = 30 * 24 * time.Hour
)

// tag makes a name fit to stand in a hash tag.
func tag(s string) string {
	if !strings.ContainsAny(s, "{}%") {
		return s
	}
	return strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D").Replace(s)
}

func (k keys) peer(id string) (entry, waiting string) {
	t := k.prefix + ":peer:{" + tag(id) + "}"
	return t, t + ":waiting"
}

func (k keys) room(name string) string { return k.prefix + ":room:{" + tag(name) + "}" }
func (k keys) nodes() string           { return k.prefix + ":{nodes}" }
func (k keys) nodesChannel() string    { return k.prefix + ":{nodes}:changed" }

// nodeChannel is where a node listens; another one each time it has lost its lease, so
// that nothing from before reaches it.
func (k keys) nodeChannel(id bus.NodeID, term uint64) string {
	return k.prefix + ":node:{" + string(id) + "}:" + strconv.FormatUint(term, 10)
}

func (k keys) bucket(name string) string { return k.prefix + ":{records}:bucket:" + name }
func (k keys) revision() string          { return k.prefix + ":{records}:revision" }
func (k keys) buckets() string           { return k.prefix + ":{records}:buckets" }
func (k keys) recordsChannel() string    { return k.prefix + ":{records}:changed" }
