package relay

import (
	"crypto/tls"
	"net"
	"os"
	"time"

	"callbox/relay/internal/udp"
)

// secured is a TLS session whose connection a shard reads. The session finds what came and nothing behind it, as if a deadline had
// passed, after which it can be read again.
type secured struct {
	session *tls.Conn
	tcp     *udp.TCP
	old     net.Conn // closed; it knows the addresses

	// Owned by the session's reader.
	came   []byte
	queued func() // sees to it that what is queued is flushed
}

// secure puts a shard's connection under a session.
func secure(session *tls.Conn, under swapper, tcp *udp.TCP, queued func()) *secured {
	o := &secured{session: session, tcp: tcp, queued: queued}
	o.old = under.Swap((*underTLS)(o))
	return o
}

// Feed and Read make it the connection's udp.Decoder.
func (o *secured) Feed(b []byte) { o.came = b }

func (o *secured) Read(b []byte) (int, error) {
	n, err := o.session.Read(b)
	if n == 0 && o.tcp.Queued() > 0 { // perhaps by the session itself, as the answer to a key update
		o.queued()
	}
	return n, err
}

// Queue encrypts a message to be sent. A record is one message: there are clients (turnutils_uclient) that read a record at a
// time and look for one message in it.
func (o *secured) Queue(b []byte, most int) bool {
	if o.tcp.Queued()+len(b) > most {
		return false
	}
	_, err := o.session.Write(b)
	return err == nil
}

func (o *secured) Flush()    { o.tcp.Flush() }
func (o *secured) Shutdown() { o.tcp.Shutdown() }

func (o *secured) Close() {
	// The client is told that nothing more comes, unless the session is at its end already.
	_ = o.session.CloseWrite()
	o.tcp.Close()
}

// underTLS is the connection that the session of a secured sees.
type underTLS secured

func (u *underTLS) Read(b []byte) (int, error) {
	if len(u.came) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, u.came)
	u.came = u.came[n:]
	return n, nil
}

// Write is given a record that counts already: without it the client understands none that comes behind it.
func (u *underTLS) Write(b []byte) (int, error) {
	if !u.tcp.Queue(b, maxRecords) {
		u.tcp.Shutdown()
		return 0, net.ErrClosed
	}
	return len(b), nil
}

// maxRecords bounds what waits as records, in bytes. Beside maxPending there is room for as much that the kernel has just given back, for
// a message of each shard that has found room at the same moment, and for answers to key updates.
const maxRecords = 4 * maxPending

// Close is the outlet's business.
func (u *underTLS) Close() error { return nil }

func (u *underTLS) LocalAddr() net.Addr  { return u.old.LocalAddr() }
func (u *underTLS) RemoteAddr() net.Addr { return u.old.RemoteAddr() }

// Nothing here waits, so there are no deadlines.
func (u *underTLS) SetDeadline(time.Time) error      { return nil }
func (u *underTLS) SetReadDeadline(time.Time) error  { return nil }
func (u *underTLS) SetWriteDeadline(time.Time) error { return nil }
