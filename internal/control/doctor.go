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
	"time"

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

// PhoneLine is one line of the answer to PathPhone: the link first, then what happens to it, a check for each step, and how
// the probe ended. Who hangs up ends the probe.
type PhoneLine struct {
	Link   *PhoneLink    `json:"link,omitempty"`
	Opened string        `json:"opened,omitempty"` // the address of who has opened it
	Check  *doctor.Check `json:"check,omitempty"`
	Ended  string        `json:"ended,omitempty"` // PhoneDone, PhoneExpired or PhoneStopping
}

// PhoneLink is the link that a phone is to open.
type PhoneLink struct {
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
	Note    string    `json:"note"` // what is to be known of it; "" nothing
}

// How a probe ends.
const (
	PhoneDone     = "done"
	PhoneExpired  = "expired"
	PhoneStopping = "stopping" // the server is
)

// Phone has the server wait for a phone, and hands on what it says.
func (c *Client) Phone(ctx context.Context, tell func(PhoneLine)) error {
	ended := false
	err := c.lines(ctx, PathPhone, nil, func(line []byte) error {
		var l PhoneLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("control answer: %w", err)
		}
		ended = ended || l.Ended != ""
		tell(l)
		return nil
	})
	if err == nil && !ended {
		return ErrCutOff
	}
	return err
}
