# make test is the whole check. The other targets are parts of it, or longer.

GO      ?= go
SHELL   := /bin/sh
NESTED  := $(dir $(filter-out ./go.mod,$(shell find . -name go.mod -not -path '*/testdata/*' -not -path './.git/*')))

# The race detector needs cgo, and with it a C compiler. It leaves out the engine of
# SQLite, which is C turned into Go: that keeps its data where the detector doesn't
# look, and would take some times as long. It ends without its second of sleep.
RACE    := $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race -gcflags=modernc.org/sqlite/lib=-race=false)
export GORACE ?= atexit_sleep_ms=0
# Where internal/pgtest looks for Postgres.
POSTGRES := $(AGENTKEY_TEST_POSTGRES_URL)$(shell command -v initdb)$(wildcard \
	/usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /opt/homebrew/opt/postgresql@*/bin/initdb /usr/local/opt/postgresql@*/bin/initdb)

# Where the tests of vault/pkcs11 look for SoftHSM.
SOFTHSM := $(AGENTKEY_TEST_SOFTHSM)$(wildcard /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
	/usr/lib64/pkcs11/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so /opt/homebrew/lib/softhsm/libsofthsm2.so)

MISSING := $(if $(RACE),,the race detector (no C compiler);)$(if $(POSTGRES),, every test on Postgres (not installed);)$(if $(SOFTHSM),, the tests on SoftHSM (not installed);)$(if \
	$(shell command -v curl),, the commands of the README (no curl);)

.PHONY: test whole build vet format lint unit alone nested prove bench gates fuzz cover
.NOTPARALLEL:

test: whole build vet format lint unit alone nested
	@missing='$(MISSING)'; echo "make test: passed; left out: $${missing:-nothing}"

# With CI set, what is missing is a failure, and shows before anything runs.
whole:
	@missing='$(MISSING)'; [ -z "$$missing" ] || { echo "make: left out on this machine: $$missing" >&2; [ -z "$$CI" ]; }

build:
	$(GO) build ./...

vet:
	$(GO) vet ./...

format:
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "gofmt -w these:" $$files >&2; exit 1; fi

lint:
	$(GO) tool staticcheck ./...

# More tests at once than there are processors, because many wait for a disk. What
# fails while the machine stands still runs once more, see internal/steady.
unit:
	$(GO) run ./internal/steady $(GO) test $(RACE) -parallel 4 -timeout 30m ./...

# Without the race detector: a fault at every single storage call of every operation,
# in every way, which would take five times as long with it (unit runs every
# operation without a fault), what a page of a list allocates and what else holds in
# memory, and an import at its bound, which has to have the machine to itself.
alone:
	$(GO) test -run '^(TestEveryStorageCallFails|TestListsHoldTheirMemory|TestEndpointsHoldTheirMemory)$$' -count=1 . ./refserver
	$(GO) test -run '^TestImportAtItsBound$$' -count=1 .

nested:
	@lint=$$($(GO) tool -n staticcheck) && for dir in $(NESTED); do \
		echo "in $$dir" && (cd $$dir && $(GO) vet ./... && $$lint ./... && $(GO) test $(RACE) ./...) || exit 1; done

# The long proofs: the same tests with more rounds. Takes long. Those of memory
# without the race detector, see alone.
prove: whole
	AGENTKEY_PROVE=1 $(GO) test $(RACE) -count=1 -timeout 3h ./...
	AGENTKEY_PROVE=1 $(GO) test -run '^(TestListsHoldTheirMemory|TestEndpointsHoldTheirMemory)$$' -count=1 -timeout 1h ./refserver

# The benchmarks named by BENCH, in the form that benchstat reads: COUNT times,
# for BENCHTIME each. See docs/benchmarks.md.
BENCH     ?= .
BENCHTIME ?= 200ms
COUNT     ?= 1
bench:
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -benchmem -timeout 1h ./...

# What a vend must cost, against its bounds: a table, measured in one run. Wants a
# machine that does nothing else. See docs/benchmarks.md.
gates:
	@AGENTKEY_GATES=1 $(GO) test -v -run '^TestGates$$' -count=1 -timeout 30m ./refserver/cmd/agentkey

# Every fuzz target, for FUZZTIME each.
FUZZTIME ?= 10s
fuzz:
	@grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's,/[^/]*:[0-9]*:func , ,' | while read -r dir target; do \
		echo "$$dir $$target" && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir || exit 1; done

# What the tests of all packages together reach.
cover:
	$(GO) test -coverpkg=./... -coverprofile=cover.out ./...
	$(GO) tool cover -func=cover.out | tail -n 1
