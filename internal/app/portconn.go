package app

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

const (
	// proxyFixed is the signature, version, family and length of a PROXY v2 header.
	proxyFixed = 16
	// proxyMax bounds a whole header; addresses take 36 bytes, the rest are a proxy's TLVs.
	proxyMax = 2048
)

var errProxyHeader = errors.New("PROXY header")

// portConn is a connection some bytes of which have been looked at.
type portConn struct {
	net.Conn
	port *port

	// owned by the goroutine that decides, and later by the reader
	prefix   []byte
	remote   net.Addr // the client, as a trusted proxy names it
	proxyTLS bool     // the trusted proxy says that it speaks TLS with the client

	once sync.Once
	key  netip.Addr // counted under this address; zero: not counted
}

// peek returns the next byte without taking it.
func (c *portConn) peek() (byte, error) {
	if len(c.prefix) == 0 {
		var one [1]byte
		if _, err := io.ReadFull(c.Conn, one[:]); err != nil {
			return 0, err
		}
		c.prefix = one[:]
	}
	return c.prefix[0], nil
}

// readProxyHeader takes exactly one PROXY v2 header off the connection, so that what follows it is untouched.
func (c *portConn) readProxyHeader() error {
	header := make([]byte, proxyFixed)
	if _, err := io.ReadFull(c, header); err != nil {
		return fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	length := int(binary.BigEndian.Uint16(header[14:]))
	if length > proxyMax-proxyFixed {
		return fmt.Errorf("%w: %d bytes are more than %d", errProxyHeader, length, proxyMax-proxyFixed)
	}
	header = append(header, make([]byte, length)...)
	if _, err := io.ReadFull(c, header[proxyFixed:]); err != nil {
		return fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	parsed, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), len(header)))
	if err != nil {
		return fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	if parsed.Version != 2 {
		return fmt.Errorf("%w: version %d is not 2", errProxyHeader, parsed.Version)
	}
	if parsed.Command == proxyproto.LOCAL {
		return nil // the proxy's own health check: the connection's addresses hold
	}
	source, ok := parsed.SourceAddr.(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("%w: its source is not a TCP address", errProxyHeader)
	}
	c.remote = source
	if tlvs, err := parsed.TLVs(); err == nil {
		ssl, ok := tlvparse.FindSSL(tlvs)
		c.proxyTLS = ok && ssl.ClientSSL()
	}
	return nil
}

func (c *portConn) counted() bool { return c.key.IsValid() }

func (c *portConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.prefix = nil
		}
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *portConn) RemoteAddr() net.Addr { return c.remote }

// Unread is what has been looked at and not read, and the connection that the rest comes from.
func (c *portConn) Unread() ([]byte, net.Conn) { return c.prefix, c.Conn }

// Swap puts another connection underneath and returns the one that was there. Nobody else may use the connection meanwhile.
func (c *portConn) Swap(next net.Conn) net.Conn {
	old := c.Conn
	c.Conn = next
	return old
}

// NetConn is the connection underneath.
func (c *portConn) NetConn() net.Conn { return c.Conn }

// Close also takes the connection off its address's count.
func (c *portConn) Close() error {
	c.once.Do(func() {
		if c.counted() {
			c.port.release(c.key)
		}
	})
	return c.Conn.Close()
}

// secureConn is a portConn inside a TLS session. A type of its own, because net/http takes any connection that has the
// method ConnectionState for one that came over TLS.
type secureConn struct {
	*portConn
	session *tls.Conn
}

// ConnectionState lets net/http fill Request.TLS in.
func (c *secureConn) ConnectionState() tls.ConnectionState { return c.session.ConnectionState() }
