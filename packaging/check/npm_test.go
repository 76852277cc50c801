package check

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callbox/internal/testkit"
)

const typescript = "typescript@5.9.3"

// consumer is an application in TypeScript that uses the package.
const consumer = `import { CallboxError, Client, selectedPath } from "callbox";

const client = new Client({ url: "https://calls.example.org", token: async () => "token", iceTransportPolicy: "relay" });
const room = await client.join("standup");
const names: string[] = room.peers.map((peer) => peer.name);
client.signal(room.peers[0].peer, { names });
for (const peer of client.peers.values()) {
  if (peer.pc) console.log(peer.id, selectedPath(await peer.pc.getStats()));
}
client.publish({ audio: null });
const call = await client.call("ada", "standup");
const { accepted }: { accepted: boolean } = await call.answer;
console.log(accepted, client.state === "open");
try {
  await client.leave("standup");
} catch (error) {
  if (error instanceof CallboxError) console.log(error.code);
}
`

// wrong uses the package as its types forbid.
const wrong = `import { Client } from "callbox";
new Client({ token: 7 });
`

func TestNpmPackageIsWholeAndTyped(t *testing.T) {
	root, tools := testkit.Root(t), testkit.NPM(t, typescript)
	tsc := filepath.Join(tools, "node_modules", "typescript", "bin", "tsc")
	run := func(dir, name string, arguments ...string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, arguments...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				out = append(out, exit.Stderr...)
			}
		}
		return string(out), err
	}
	must := func(dir, name string, arguments ...string) string {
		t.Helper()
		out, err := run(dir, name, arguments...)
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
		}
		return out
	}
	node, npm := testkit.Tool(t, "node"), testkit.Tool(t, "npm")
	dir := t.TempDir()
	built := filepath.Join(dir, "built")
	must(root, node, filepath.Join("packaging", "npm", "build.mjs"), built, "v1.2.3", tsc)

	// What npm would publish.
	var packed []struct {
		Name, Version, Filename string
		Files                   []struct{ Path string }
	}
	out := must(built, npm, "pack", "--json", "--ignore-scripts", "--pack-destination", dir)
	if err := json.Unmarshal([]byte(out), &packed); err != nil || len(packed) != 1 {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	if p := packed[0]; p.Name != "callbox" || p.Version != "1.2.3" {
		t.Errorf("%s %s", p.Name, p.Version)
	}
	var got []string
	for _, f := range packed[0].Files {
		got = append(got, f.Path)
	}
	want := []string{"LICENSE", "README.md", "package.json", "callbox.js", "callbox.d.ts"}
	modules, err := filepath.Glob(filepath.Join(root, "static", "callbox", "*.js"))
	if err != nil || len(modules) == 0 {
		t.Fatalf("modules: %v, %v", modules, err)
	}
	for _, m := range modules {
		name := "callbox/" + strings.TrimSuffix(filepath.Base(m), ".js")
		want = append(want, name+".js", name+".d.ts")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("packed: %q\nwant: %q", got, want)
	}
	// The scripts are the server's own.
	served, err := os.ReadFile(filepath.Join(root, "static", "callbox.js"))
	if err != nil {
		t.Fatal(err)
	}
	if copied, err := os.ReadFile(filepath.Join(built, "callbox.js")); err != nil || string(copied) != string(served) {
		t.Errorf("callbox.js differs from what is served (%v)", err)
	}

	// As an application has it.
	app := filepath.Join(dir, "app")
	if err := os.MkdirAll(app, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"package.json": `{"private":true,"type":"module"}`, "app.ts": consumer, "wrong.ts": wrong} {
		if err := os.WriteFile(filepath.Join(app, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(app, npm, "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", filepath.Join(dir, packed[0].Filename))
	for _, resolution := range [][]string{{"--module", "esnext", "--moduleResolution", "bundler"}, {"--module", "nodenext", "--moduleResolution", "nodenext"}} {
		arguments := append([]string{tsc, "--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom,dom.iterable"}, resolution...)
		must(app, node, append(arguments, "app.ts")...)
		if out, err := run(app, node, append(arguments, "wrong.ts")...); err == nil || !strings.Contains(out, "TS2322") {
			t.Errorf("a wrong use passes: %v\n%s", err, out)
		}
	}
	// And it can be loaded.
	if out := must(app, node, "--input-type=module", "-e", `import * as all from "callbox"; console.log(Object.keys(all).sort().join(" "))`); strings.TrimSpace(out) != "CallboxError Client selectedPath" {
		t.Errorf("exports: %s", out)
	}
}

func TestNpmPackInItsFolderHasTheScripts(t *testing.T) {
	root, dir := testkit.Root(t), t.TempDir()
	testkit.NPM(t, typescript) // in npm's cache, from which the build fetches it
	for _, part := range []string{"static", filepath.Join("packaging", "npm")} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), license, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	pack := exec.CommandContext(ctx, testkit.Tool(t, "npm"), "pack", "--prefer-offline")
	pack.Dir = filepath.Join(dir, "packaging", "npm")
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	list, err := exec.CommandContext(ctx, testkit.Tool(t, "tar"), "tzf", filepath.Join(pack.Dir, "callbox-0.0.0.tgz")).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"package/callbox.js\n", "package/callbox.d.ts\n", "package/callbox/client.js\n", "package/callbox/client.d.ts\n", "package/LICENSE\n"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("%s is missing in\n%s", want, list)
		}
	}
	if strings.Contains(string(list), "build.mjs") {
		t.Errorf("the build is packed:\n%s", list)
	}
}

func TestNpmVersionIsOneForEveryVersionOfTheProgram(t *testing.T) {
	root, dir := testkit.Root(t), t.TempDir()
	node := testkit.Tool(t, "node")
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3-4-gabc1234-dirty": "1.2.3-4-gabc1234-dirty", "abc1234": "0.0.0-abc1234", "0123456": "0.0.0-g0123456", "devel": "0.0.0-devel",
	} {
		out := filepath.Join(dir, "out")
		// "true" stands in for the compiler: only the version is looked at.
		if text, err := exec.Command(node, filepath.Join(root, "packaging", "npm", "build.mjs"), out, version, testkit.Tool(t, "true")).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", version, err, text)
		}
		text, err := os.ReadFile(filepath.Join(out, "package.json"))
		var manifest struct{ Version string }
		if err != nil || json.Unmarshal(text, &manifest) != nil || manifest.Version != want {
			t.Errorf("%s: %q, want %q", version, manifest.Version, want)
		}
	}
}
