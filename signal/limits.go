package signal

import "time"

// Limits bound what clients can make grow. A zero field takes its default.
type Limits struct {
	Connections int // open connections of this node; default 50,000
	// ConnectionsPerUser are those of one logged-in user on this node; default 100. Room tokens do not count: who signs them may
	// give all of their holders one subject.
	ConnectionsPerUser int
	FrameBytes         int           // one frame from a client; default 256 KiB
	MessageRate        int           // messages a second of one connection, twice that in a burst; default 1,000
	MessageBytes       int           // bytes a second of one connection, twice that in a burst; default 4,000,000
	QueueBytes         int           // unacknowledged and unsent bytes of one session; default 1 MiB
	QueueTotal         int           // such bytes of all sessions of this node; default 512 MiB
	RoomsPerPeer       int           // default 32
	PeersPerRoom       int           // default 50
	ResumeWindow       time.Duration // how long a dropped session is held; default 30 s
	HelloTimeout       time.Duration // default 10 s
	PingAfter          time.Duration // silence after which a ping is sent; default 30 s
	PingTimeout        time.Duration // silence allowed after that ping; default 15 s
	RingTimeout        time.Duration // default 45 s
	BusTimeout         time.Duration // one call of the bus; default 5 s
	GapTimeout         time.Duration // how long a message waits for the one sent before it; default 5 s
	TakeTimeout        time.Duration // how long a resume waits for the session's holder; default 3 s
	CloseLinger        time.Duration // how long a closed connection may take to read its close frame; default 5 s
}

// What is not worth a flag.
const (
	faultsPerMinute  = 15
	ringsPerPeer     = 16       // in each direction
	ringsPerCaller   = 4        // of those coming in, from one user: nobody keeps a line busy alone
	ringConnections  = 32       // connections of one user that ring
	controlBytes     = 64 << 10 // pongs and the like that wait for a socket
	maxSources       = 4096     // senders whose order one session remembers
	maxPending       = 256      // messages that wait for one sent before them
	maxRerouted      = 1024     // messages that wait while one peer is looked up
	overloadDuration = 5 * time.Second
	forwardFor       = time.Minute // how long the old holder forwards
)

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	dur := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Connections, 50_000)
	def(&l.ConnectionsPerUser, 100)
	def(&l.FrameBytes, 256<<10)
	def(&l.MessageRate, 1000)
	def(&l.MessageBytes, 4_000_000)
	def(&l.QueueBytes, 1<<20)
	def(&l.QueueTotal, 512<<20)
	def(&l.RoomsPerPeer, 32)
	def(&l.PeersPerRoom, 50)
	dur(&l.ResumeWindow, 30*time.Second)
	dur(&l.HelloTimeout, 10*time.Second)
	dur(&l.PingAfter, 30*time.Second)
	dur(&l.PingTimeout, 15*time.Second)
	dur(&l.RingTimeout, 45*time.Second)
	dur(&l.BusTimeout, 5*time.Second)
	dur(&l.GapTimeout, 5*time.Second)
	dur(&l.TakeTimeout, 3*time.Second)
	dur(&l.CloseLinger, 5*time.Second)
	return l
}
