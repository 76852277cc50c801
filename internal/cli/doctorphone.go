package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/doctor"
	"callbox/internal/qr"
)

// phoneNames is the width of the names of the steps.
const phoneNames = len(doctor.StepTLS)

// phone shows the link, waits for a phone, and shows each verdict as it comes.
func (cmd *doctorCmd) phone(ctx context.Context, c *call, cfg config.Config) error {
	var report doctor.Report
	var ended string
	var failed error
	// A program takes the report from the standard output; people read the rest beside it.
	out := c.Stdout
	if cmd.JSON {
		out = c.Stderr
	}
	tell := func(l control.PhoneLine) {
		text := ""
		switch {
		case l.Link != nil:
			failed = errors.Join(failed, c.showLink(out, cfg, *l.Link))
		case l.Opened != "":
			text = "\nOpened by " + l.Opened + ".\n\n"
		case l.Check != nil:
			report.Checks = append(report.Checks, *l.Check)
			text = doctorRow(*l.Check, phoneNames, c.colours())
		default:
			ended = l.Ended
		}
		if _, err := io.WriteString(out, text); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	err := control.NewClient(cfg.Data).Phone(ctx, tell)
	if errors.Is(err, control.ErrNoServer) {
		err = c.withPatient(ctx, cfg, func(client *control.Client) error { return client.Phone(ctx, tell) })
	}
	switch {
	case err != nil && ctx.Err() == nil:
		return err
	case failed != nil:
		return failed
	case ended == control.PhoneExpired && len(report.Checks) == 0:
		return errors.New("the link has ended and no phone has opened it: where one tried, nothing of this server is reached from there; look at callbox doctor for the way in")
	case ended != control.PhoneDone:
		err = errors.New("the probe has ended before the phone had tried everything; run callbox doctor --phone again")
	}
	if cmd.JSON {
		failed = c.printJSON(report)
	} else {
		_, failed = io.WriteString(out, "\n"+doctorSum(report))
	}
	if err == nil {
		err = failed
	}
	if err == nil && report.Worst() == doctor.Fail {
		err = fmt.Errorf("%w: %s", errUnwell, report.Summary())
	}
	return err
}

// showLink prints what a phone is to open.
func (c *call) showLink(out io.Writer, cfg config.Config, link control.PhoneLink) error {
	say := "Open this link on a phone with Wi-Fi switched off, until " + link.Expires.Local().Format("15:04") + ". Where the browser warns of the certificate, go on. Ctrl-C ends."
	if link.Note != "" {
		say += " " + link.Note
	}
	if _, err := fmt.Fprintf(out, "%s\n\n%s\n\n", strings.Join(wrapAt(say, tableWidth), "\n"), link.URL); err != nil {
		return err
	}
	if columns, lines := c.size(); !c.Terminal || cfg.QR == config.Off || !qr.Fits(link.URL, columns, lines) {
		return nil
	}
	return qr.Print(out, link.URL)
}
