package redis

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"callbox/bus"
)

// noLink marks errors that mean Redis was not reached.
func noLink(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, said := rueidis.IsRedisErr(err); said {
		return err
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", bus.ErrNoLink, err)
}
