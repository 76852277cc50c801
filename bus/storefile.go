package bus

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"
)

const fileFormat = "callbox records 1"

// bucketFile is the shape of a file; readable, because people look at it when
// something is wrong.
type bucketFile struct {
	Format  string                 `json:"format"`
	Records map[string]*fileRecord `json:"records"`
}

type fileRecord struct {
	Version uint64     `json:"version"`
	Expires *time.Time `json:"expires,omitempty"`
	Deleted bool       `json:"deleted,omitempty"`
	Text    string     `json:"text,omitempty"`   // the value, when it is UTF-8
	Base64  string     `json:"base64,omitempty"` // the value, when it is not
}

func bucketOfFile(name string) (string, bool) {
	bucket, ok := strings.CutSuffix(name, ".json")
	return bucket, ok && CheckBucket(bucket) == nil
}

func readBucket(dir, bucket string) (map[string]Record, error) {
	path := filepath.Join(dir, bucket+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s file: %w", bucket, err)
	}
	records, offset, err := decodeBucket(data)
	if err == nil {
		return records, nil
	}
	remedy := "no good copy of it is beside it; restore one, or move the file away to start without these records"
	if backup, rerr := os.ReadFile(path + ".bak"); rerr == nil {
		if _, _, berr := decodeBucket(backup); berr == nil {
			remedy = fmt.Sprintf("%s.bak holds its last good content; copy that over it", path)
		}
	}
	return nil, fmt.Errorf("%s file: %w: %s at byte %d: %v; %s", bucket, ErrDamaged, path, offset, err, remedy)
}

// Foreign reads the files again and returns, by bucket and key, what somebody else has changed in them, as by putting a copy back:
// a record that the file has no more as a deletion. Nothing is taken over; Records.Update does that, under a version of its own.
// Where a file is damaged nothing is returned. One that is gone changes nothing.
func (s *Store) Foreign(ctx context.Context) (map[string]map[string]Record, error) {
	if s.dir == "" {
		return nil, nil
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("record store: %w", err)
	}
	out := make(map[string]map[string]Record)
	for _, e := range entries {
		bucket, ok := bucketOfFile(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		records, err := readBucket(s.dir, bucket)
		if err != nil {
			return nil, err
		}
		changed := make(map[string]Record)
		for key, r := range records {
			if was := s.All(bucket)[key]; !r.same(was) {
				changed[key] = r
			}
		}
		for key := range s.All(bucket) {
			if _, there := records[key]; !there {
				changed[key] = Record{Deleted: true}
			}
		}
		if len(changed) > 0 {
			out[bucket] = changed
		}
	}
	return out, nil
}

// same compares what a file keeps of two records.
func (r Record) same(other Record) bool {
	return r.Version == other.Version && r.Deleted == other.Deleted && r.Expires.Equal(other.Expires) && bytes.Equal(r.Value, other.Value)
}

// decodeBucket returns the byte offset of a fault with it.
func decodeBucket(data []byte) (map[string]Record, int64, error) {
	var f bucketFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		var syntax *json.SyntaxError
		var shape *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return nil, syntax.Offset, err
		case errors.As(err, &shape):
			return nil, shape.Offset, err
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, int64(len(data)), errors.New("the file ends too early")
		}
		return nil, d.InputOffset(), err
	}
	end := d.InputOffset()
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, end, errors.New("something follows the end of the records")
	}
	if f.Format != fileFormat {
		return nil, 0, fmt.Errorf("its format is %q, not %q", f.Format, fileFormat)
	}
	records := make(map[string]Record, len(f.Records))
	for k, r := range f.Records {
		if r == nil || r.Version == 0 || (r.Text != "" && r.Base64 != "") {
			return nil, 0, fmt.Errorf("record %q is incomplete", k)
		}
		rec := Record{Version: r.Version, Deleted: r.Deleted, Value: []byte(r.Text)}
		if r.Base64 != "" {
			value, err := base64.StdEncoding.DecodeString(r.Base64)
			if err != nil {
				return nil, 0, fmt.Errorf("record %q: %w", k, err)
			}
			rec.Value = value
		}
		if r.Deleted {
			rec.Value = nil
		}
		if r.Expires != nil {
			rec.Expires = *r.Expires
		}
		records[k] = rec
	}
	return records, 0, nil
}

func encodeBucket(records map[string]Record) ([]byte, error) {
	f := bucketFile{Format: fileFormat, Records: make(map[string]*fileRecord, len(records))}
	for k, r := range records {
		fr := &fileRecord{Version: r.Version, Deleted: r.Deleted}
		if !r.Expires.IsZero() {
			t := r.Expires.UTC()
			fr.Expires = &t
		}
		if utf8.Valid(r.Value) {
			fr.Text = string(r.Value)
		} else {
			fr.Base64 = base64.StdEncoding.EncodeToString(r.Value)
		}
		f.Records[k] = fr
	}
	data, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// writeBucket replaces the backup and then the file, each in one step: whatever
// happens in between, one of the two is whole. The file is last, so that an error
// means that it is as it was.
func writeBucket(dir, bucket string, records map[string]Record) error {
	data, err := encodeBucket(records)
	if err == nil {
		path := filepath.Join(dir, bucket+".json")
		if err = replaceFile(dir, path+".bak", data); err == nil {
			err = replaceFile(dir, path, data)
		}
	}
	if err != nil {
		return fmt.Errorf("%s file: %w", bucket, err)
	}
	return nil
}

func replaceFile(dir, path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		if rerr := os.Remove(tmp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return errors.Join(err, rerr)
		}
		return err
	}
	return syncDir(dir)
}
