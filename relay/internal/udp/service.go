package udp

import "time"

// Service is what a loop does with a TCP connection. All its functions are called on the loop's goroutine.
type Service struct {
	First []byte // what has been read of it already, decoded
	// Through makes messages of what comes in; nil: they come as they are.
	Through Decoder
	// Handle is called with what has come and what it left the last time. It returns what it leaves now, and false for an end. What it
	// was given is valid until the loop's outbox is flushed.
	Handle func([]byte) (rest []byte, ok bool)
	// Ended is called once, when nothing more comes.
	Ended func()
	// Patience is how long a connection may take nothing of what is queued before it is shut down.
	Patience time.Duration
}

// Decoder turns the bytes of a connection into others.
type Decoder interface {
	// Feed says what has come next. It is valid until Read has given os.ErrDeadlineExceeded.
	Feed([]byte)
	// Read is as that of an io.Reader that waits for nothing: os.ErrDeadlineExceeded says that it needs more to be fed.
	Read([]byte) (int, error)
}
