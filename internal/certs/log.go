package certs

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// debugLogger hands certmagic's lines to ours, as details for who looks for them: what matters is logged by the Manager.
func debugLogger(log *slog.Logger) *zap.Logger { return zap.New(debugCore{log: log}) }

type debugCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (c debugCore) Enabled(zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slog.LevelDebug)
}

func (c debugCore) With(fields []zapcore.Field) zapcore.Core {
	c.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return c
}

func (c debugCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

func (c debugCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	c.log.Debug("ACME: "+e.Message, "level", e.Level.String(), "details", enc.Fields)
	return nil
}

func (debugCore) Sync() error { return nil }
