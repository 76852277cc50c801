// Command release makes what is handed out: for each platform an archive with one static program, its license, the notices of
// what it is made of and the documents; for Linux a deb and an rpm besides; and the checksums of all of them. The same commit
// gives the same bytes, whoever runs it and whenever.
//
//	go run ./packaging/release linux/amd64 windows/arm64     into dist/
//	go run ./packaging/release -check linux/amd64            makes everything twice and compares
//	go run ./packaging/release -notices                      prints the notices of third parties
//
// It runs at the top of the repository, and needs nothing but Go and, for the version and time of the commit, git. It knows
// nothing of what the program does.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	out := flags.String("out", "dist", "folder for what is made; emptied first")
	version := flags.String("version", "", "version (git describe)")
	check := flags.Bool("check", false, "make everything twice and compare; nothing is kept")
	onlyNotices := flags.Bool("notices", false, "print the notices of third parties and make nothing")
	packages := flags.Bool("packages", true, "make deb and rpm for Linux")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *onlyNotices {
		text, err := notices(ctx)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(text)
		return err
	}
	platforms, err := parsePlatforms(flags.Args())
	if err != nil {
		return err
	}
	r, err := describe(ctx, *version)
	if err != nil {
		return err
	}
	r.packages = *packages
	if *check {
		return r.twice(ctx, platforms)
	}
	files, err := r.make(ctx, *out, platforms)
	for _, file := range files {
		fmt.Println(filepath.Join(*out, file))
	}
	return err
}
