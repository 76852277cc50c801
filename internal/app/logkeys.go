package app

// Keys of log records.
const (
	logError       = "error"
	logRemote      = "remote"
	logPause       = "pause"
	logName        = "name"
	logAllocations = "allocations"
	logPath        = "path"
	logFault       = "fault"
	logStack       = "stack"
)
