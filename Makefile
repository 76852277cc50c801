# One command passes every test on a fresh Debian machine with Go: make test.

GO ?= go
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 5000x
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
# Browsers, namespaces and whole clusters want the machine to themselves.
HEAVY = callbox/internal/e2e
# Downloads the base of a Debian, so it is a step of its own.
INSTALL = callbox/packaging/install
STEP = @.ci/step

.PHONY: all build run test tools lint fmt vet staticcheck cross unit plain scripts fuzz e2e install-test soak bench package package-check npm cluster-demo clean

all: build

build:
	$(GO) build -trimpath -o callbox .

run:
	$(GO) run . serve

# The steps run one after another, whatever -j says: two of them at once would disturb each other's timing.
test:
	$(STEP) tools .ci/tools
	$(STEP) fmt $(MAKE) --no-print-directory fmt
	$(STEP) vet $(MAKE) --no-print-directory vet
	$(STEP) staticcheck $(MAKE) --no-print-directory staticcheck
	$(STEP) cross $(MAKE) --no-print-directory cross
	$(STEP) scripts $(MAKE) --no-print-directory scripts
	$(STEP) unit $(MAKE) --no-print-directory unit
	$(STEP) plain $(MAKE) --no-print-directory plain
	$(STEP) fuzz $(MAKE) --no-print-directory fuzz
	$(STEP) e2e $(MAKE) --no-print-directory e2e
	$(STEP) install-test $(MAKE) --no-print-directory install-test

tools:
	.ci/tools

lint: fmt vet staticcheck

fmt:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt -w these files:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet ./...

staticcheck:
	$(STATICCHECK) ./...

# Every package that is not for tests alone compiles, and the program links, on every platform; nothing is kept. -trimpath is
# what releases are built with.
cross:
	@set -e; for p in $(PLATFORMS); do \
		echo "$$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath $$($(GO) list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v -e /internal/testkit -e /internal/e2e) ; \
	done

unit:
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v -e '^$(HEAVY)$$' -e '^$(INSTALL)$$')

# What the race detector hides: heap allocations on the hot path.
plain:
	$(GO) test -run DoesNotAllocate ./relay

e2e:
	$(GO) test -race -timeout 25m $(HEAVY)

# What is handed out, made and installed on an empty Debian.
install-test:
	$(GO) test -timeout 15m $(INSTALL)

# Allocations coming and going for minutes; make test does it for seconds.
soak:
	TEST_SOAK=5m $(GO) test -timeout 20m -count=1 -v -run TestAllocationsComeAndGo $(HEAVY)

# The browser client has no DOM in it, so its tests need no browser.
scripts:
	@files=$$(find static -name '*_test.mjs' -o -name '*_test.js' | sort); \
	if [ -z "$$files" ]; then echo "no test of the browser client found under static/"; exit 1; fi; \
	node --test $$files

# Counted in runs, not seconds, so that a slow machine does the same work: make fuzz FUZZTIME=10m for a long one.
fuzz:
	.ci/fuzz $(FUZZTIME)

# The packages' own benchmarks, then real nodes over a real Redis. BENCH="-json kill" does only what it says of the latter.
bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./internal/bench $(BENCH)

package:
	.ci/package $(PLATFORMS)

# The same bytes twice, for all platforms.
package-check:
	.ci/package --check $(PLATFORMS)

# The browser client as an npm package in dist/npm, of the program's version; npm pack or npm publish is run there.
npm:
	node packaging/npm/build.mjs dist/npm "$$(git describe --tags --always --dirty)"

cluster-demo:
	packaging/cluster/demo

clean:
	rm -rf callbox dist
