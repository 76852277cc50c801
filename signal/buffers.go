package signal

import "sync"

// bufferPool lends buffers for one frame or one write; an idle connection holds none.
type bufferPool struct{ pool sync.Pool }

const keepBuffer = 128 << 10 // larger ones are left to the collector

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 8<<10)
	return &b
}

func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= keepBuffer {
		*b = (*b)[:0]
		p.pool.Put(b)
	}
}
