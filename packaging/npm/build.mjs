// node packaging/npm/build.mjs OUT VERSION [TSC]: makes the npm package in the folder OUT, from the files that the server embeds.
// VERSION is the program's own (git describe, or what callbox version prints). Types come from the JSDoc, which TypeScript checks;
// TSC is its compiler, fetched at a pinned version where it is not given. With this folder as OUT, which is what npm pack does
// here, package.json stays as it is.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const TYPESCRIPT = "typescript@5.9.3";
const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..");
const [out, given, tsc] = process.argv.slice(2);
if (!out || !given) {
  console.error("usage: node packaging/npm/build.mjs OUT VERSION [TSC]");
  process.exit(2);
}

/** The version as npm can have it (semver.org): what names no release comes before all of them. */
function semver(text) {
  const version = text.replace(/^v(?=\d)/, "");
  if (/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$/.test(version)) return version;
  return "0.0.0-" + version.replace(/[^0-9A-Za-z-]+/g, "-").replace(/^(0\d*)$/, "g$1");
}

const inPlace = resolve(out) === here;
rmSync(inPlace ? join(out, "callbox") : out, { recursive: true, force: true });
mkdirSync(join(out, "callbox"), { recursive: true });
cpSync(join(root, "static", "callbox.js"), join(out, "callbox.js"));
for (const name of readdirSync(join(root, "static", "callbox"))) {
  if (name.endsWith(".js")) cpSync(join(root, "static", "callbox", name), join(out, "callbox", name));
}
cpSync(join(root, "LICENSE"), join(out, "LICENSE"));
if (!inPlace) {
  cpSync(join(here, "README.md"), join(out, "README.md"));
  const { scripts, ...manifest } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
  writeFileSync(join(out, "package.json"), JSON.stringify({ ...manifest, version: semver(given) }, null, 2) + "\n");
}

const [command, ...first] = tsc ? [resolve(tsc)] : ["npx", "--yes", "--package", TYPESCRIPT, "tsc"];
const { status } = spawnSync(command, [
  ...first, "callbox.js", "--allowJs", "--checkJs", "--declaration", "--emitDeclarationOnly", "--outDir", ".",
  "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable",
], { cwd: out, stdio: ["ignore", "inherit", "inherit"] });
process.exit(status ?? 1);
