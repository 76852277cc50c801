package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"callbox/internal/doctor"
)

// DoctorLine is one line of the answer to PathDoctor: progress before each check, and the report as the last.
type DoctorLine struct {
	Progress *doctor.Progress `json:"progress,omitempty"`
	Report   *doctor.Report   `json:"report,omitempty"`
}

// ErrCutOff says that a server ended before it had said everything.
var ErrCutOff = errors.New("the server ended in the middle of its answer")

// Doctor has the server examine itself, and tells of its progress meanwhile.
func (c *Client) Doctor(ctx context.Context, tell func(doctor.Progress)) (doctor.Report, error) {
	var report *doctor.Report
	err := c.lines(ctx, PathDoctor, nil, func(line []byte) error {
		var l DoctorLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("control answer: %w", err)
		}
		if l.Progress != nil && tell != nil {
			tell(*l.Progress)
		}
		if l.Report != nil {
			report = l.Report
		}
		return nil
	})
	switch {
	case err != nil:
		return doctor.Report{}, err
	case report == nil:
		return doctor.Report{}, ErrCutOff
	}
	return *report, nil
}

// lines sends a request and hands on each line of the answer as it comes. Only the context bounds it.
func (c *Client) lines(ctx context.Context, path string, in any, each func([]byte) error) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("control request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://callbox"+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("control request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	patient := &http.Client{Transport: c.http.Transport}
	resp, err := patient.Do(req)
	if err != nil {
		return c.dialError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		refusal := ErrorBody{}
		if text, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody)); err != nil || json.Unmarshal(text, &refusal) != nil {
			refusal = ErrorBody{}
		}
		refusal.Error.Status = resp.StatusCode
		return &refusal.Error
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, MaxBody)
	for scan.Scan() {
		if err := each(scan.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrCutOff, err)
	}
	return nil
}
