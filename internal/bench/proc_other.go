//go:build !linux

package main

import (
	"errors"
	"time"
)

var errPlatform = errors.New("CPU time and memory of other processes are read on Linux only")

func cpuOf(int) (time.Duration, error) { return 0, errPlatform }

func residentOf(int) (int64, error) { return 0, errPlatform }

func raiseFileLimit() error { return nil }

func ownCPU() (time.Duration, error) { return 0, errPlatform }
