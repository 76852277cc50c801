package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// rig stands in for a test, so that the helpers of testkit can be used by a
// program. Methods of testing.TB that it does not define must not be called.
type rig struct {
	testing.TB
	ctx  context.Context
	name string
	out  io.Writer // diagnostics

	mu       sync.Mutex
	cleanups []func()
	fault    error
}

// stopped is what FailNow panics with; measure recovers it.
type stopped struct{}

func newRig(ctx context.Context, name string, out io.Writer) *rig {
	return &rig{ctx: ctx, name: name, out: out}
}

// end undoes what was started, newest first, and returns what went wrong.
func (r *rig) end(panicked any) error {
	for {
		r.mu.Lock()
		if len(r.cleanups) == 0 {
			r.mu.Unlock()
			break
		}
		f := r.cleanups[len(r.cleanups)-1]
		r.cleanups = r.cleanups[:len(r.cleanups)-1]
		r.mu.Unlock()
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(stopped{}) {
					panic(p)
				}
			}()
			f()
		}()
	}
	if panicked != nil && panicked != any(stopped{}) {
		panic(panicked)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.fault, r.ctx.Err())
}

func (r *rig) Helper()                  {}
func (r *rig) Name() string             { return "bench/" + r.name }
func (r *rig) Context() context.Context { return r.ctx }

func (r *rig) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *rig) TempDir() string {
	dir, err := os.MkdirTemp("", "callbox-bench-")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Clean(dir)
}

func (r *rig) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault != nil
}

func (r *rig) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil {
		r.fault = errors.New(text)
	}
}

func (r *rig) Log(a ...any)                   { fmt.Fprintln(r.out, a...) }
func (r *rig) Logf(format string, a ...any)   { fmt.Fprintf(r.out, format+"\n", a...) }
func (r *rig) Error(a ...any)                 { r.note(fmt.Sprint(a...)) }
func (r *rig) Errorf(format string, a ...any) { r.note(fmt.Sprintf(format, a...)) }
func (r *rig) Fatal(a ...any)                 { r.note(fmt.Sprint(a...)); r.FailNow() }
func (r *rig) Fatalf(format string, a ...any) { r.note(fmt.Sprintf(format, a...)); r.FailNow() }
func (r *rig) Skip(a ...any)                  { r.Fatal(a...) }
func (r *rig) Skipf(format string, a ...any)  { r.Fatalf(format, a...) }

// FailNow is called by the goroutine that measures only.
func (r *rig) FailNow() {
	if _, file, line, ok := runtime.Caller(2); ok {
		fmt.Fprintf(r.out, "%s:%d\n", filepath.Base(file), line)
	}
	panic(stopped{})
}
