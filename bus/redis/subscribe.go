package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"callbox/bus"
)

// subscription is one life of the subscribing connections. rueidis does not
// bring a dedicated one back, which is as well: what was in the old one's
// buffers must not be delivered after the lease was lost.
type subscription struct {
	b       *Bus
	channel string // where messages for this node come
	clients []rueidis.DedicatedClient
	once    sync.Once
	broken  chan struct{} // closed when a connection has ended
	wg      sync.WaitGroup
}

func (s *subscription) isBroken() bool {
	select {
	case <-s.broken:
		return true
	default:
		return false
	}
}

func (s *subscription) fail() { s.once.Do(func() { close(s.broken) }) }

func (s *subscription) close() {
	s.b.deliver.Lock()
	if s.b.current == s {
		s.b.current = nil
	}
	s.b.deliver.Unlock()
	for _, c := range s.clients {
		c.Close()
	}
	s.wg.Wait()
}

// subscribe listens to the node's own channel and to what concerns all. It
// returns when Redis has confirmed all of it.
func (b *Bus) subscribe(term uint64) (*subscription, error) {
	s := &subscription{b: b, channel: b.keys.nodeChannel(b.self, term), broken: make(chan struct{})}
	groups := [][]string{{s.channel, b.keys.nodesChannel(), b.keys.recordsChannel()}}
	if b.cluster {
		// They lie in different slots, so on different shards.
		groups = [][]string{{s.channel}, {b.keys.nodesChannel()}, {b.keys.recordsChannel()}}
	}
	confirmed := make(chan struct{}, 16)
	for _, channels := range groups {
		c, _ := b.pub.Dedicate()
		s.clients = append(s.clients, c)
		ended := c.SetPubSubHooks(rueidis.PubSubHooks{
			OnMessage: s.message,
			OnSubscription: func(p rueidis.PubSubSubscription) {
				switch p.Kind {
				case "subscribe", "ssubscribe":
					select {
					case confirmed <- struct{}{}:
					default:
					}
				default: // a slot has moved away
					s.fail()
				}
			},
		})
		s.wg.Go(func() {
			<-ended
			s.fail()
		})
		cmd := b.pub.B().Subscribe().Channel(channels...).Build()
		if b.cluster {
			cmd = b.pub.B().Ssubscribe().Channel(channels...).Build()
		}
		if err := c.Do(b.ctx, cmd).Error(); err != nil {
			s.close()
			return nil, fmt.Errorf("subscribe: %w", noLink(b.ctx, err))
		}
	}
	timeout := time.NewTimer(ioTimeout)
	defer timeout.Stop()
	for range 3 {
		select {
		case <-confirmed:
			continue
		case <-s.broken:
		case <-timeout.C:
		case <-b.ctx.Done():
		}
		s.close()
		return nil, fmt.Errorf("subscribe: %w", bus.ErrNoLink)
	}
	return s, nil
}

// message is called by the reader of a subscribing connection.
func (s *subscription) message(m rueidis.PubSubMessage) {
	b := s.b
	switch m.Channel {
	case s.channel:
		b.receive(s, m.Message)
	case b.keys.nodesChannel():
		if m.Message != string(b.self) {
			b.kickKeeper()
		}
	case b.keys.recordsChannel():
		b.records.notify(m.Message)
	}
}

// receive delivers what a frame brings, in order and once.
func (b *Bus) receive(s *subscription, data string) {
	f, err := parseFrame(data)
	if err != nil {
		b.log.Warn("message from another node dropped", "err", err)
		return
	}
	b.deliver.Lock()
	defer b.deliver.Unlock()
	if b.deaf || b.current != s {
		return
	}
	l, err := b.link(f.from)
	if err != nil || l == nil {
		return
	}
	l.heard(&f)
	if f.stream < l.inStream {
		return
	}
	if f.stream > l.inStream {
		l.inStream, l.inNext = f.stream, f.base
	}
	l.inNext = max(l.inNext, f.base)
	delivered, bytes := 0, 0
	probe, gap := f.flags&flagProbe != 0, f.first > l.inNext
	for i, m := range f.messages {
		number := f.first + uint64(i)
		if number > l.inNext {
			break
		}
		if number < l.inNext {
			probe = true // it is here already: the sender missed a receipt
			continue
		}
		if !b.leaseHolds(time.Now()) {
			return
		}
		b.counters.Received.Add(1)
		b.handler.Message(f.from, m)
		l.inNext++
		delivered++
		bytes += len(m)
	}
	l.owe(delivered, bytes, probe, gap)
}

// publish returns how many received it.
func (b *Bus) publish(channel, message string) (int64, error) {
	// No context: its end could leave the message half written, and the
	// connection has a timeout of its own.
	cmd := b.pub.B().Publish().Channel(channel).Message(message).Build()
	if b.cluster {
		cmd = b.pub.B().Spublish().Channel(channel).Message(message).Build()
	}
	return b.pub.Do(context.Background(), cmd).AsInt64()
}
