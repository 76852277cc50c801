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
	logChanged     = "changed"
	logRestart     = "restart"
	logWas         = "was"
	logNow         = "now"
	logStack       = "stack"
	logCheck       = "check"
	logSaw         = "saw"
	logRemedy      = "remedy"
	logVerdict     = "verdict"
)
