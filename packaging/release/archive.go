package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is one file of an archive.
type file struct {
	name string // with slashes
	path string
	mode fs.FileMode
}

// contents are the files of a platform's archive, sorted by name.
func contents(stage string, p platform) ([]file, error) {
	out := []file{
		{p.program(), filepath.Join(stage, p.program()), 0o755},
		{noticesName, filepath.Join(stage, noticesName), 0o644},
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		out = append(out, file{name, name, 0o644})
	}
	// What the README's map and the documents name.
	folders := []string{"docs", "packaging/haproxy", "packaging/nginx"}
	if p.os == "linux" {
		out = append(out, file{"packaging/callbox.yaml", "packaging/callbox.yaml", 0o644})
		folders = append(folders, "packaging/systemd")
	}
	var errs []error
	for _, folder := range folders {
		errs = append(errs, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				out = append(out, file{filepath.ToSlash(path), path, 0o644})
			}
			return err
		}))
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return out, errors.Join(errs...)
}

// writeTar writes a compressed tar in which nothing tells the machine or the hour.
func writeTar(w io.Writer, top string, files []file, at time.Time) error {
	zipped, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zipped)
	add := func(f file) error {
		content, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: top + "/" + f.name, Size: int64(len(content)), Mode: int64(f.mode), ModTime: at, Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	}
	for _, f := range files {
		if err := add(f); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

// writeZip is the same for Windows, which opens zip files by itself.
func writeZip(w io.Writer, top string, files []file, at time.Time) error {
	archive := zip.NewWriter(w)
	for _, f := range files {
		content, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		header := &zip.FileHeader{Name: top + "/" + f.name, Method: zip.Deflate, Modified: at}
		header.SetMode(f.mode)
		entry, err := archive.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(content); err != nil {
			return err
		}
	}
	return archive.Close()
}
