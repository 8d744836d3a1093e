# make demo: an encrypted datastore, mounted, with a virtual machine's files in it.
# make test: the whole test suite. Both install what is missing (Debian), which for the tests
# are also libvirt's daemons: scripts/packages says so before it does.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
DESTDIR =
PREFIX = /usr
PROGRAM = bin/vmcryptfs
FUZZTIME = 10s

SHELL = /bin/bash
export PATH := $(PATH):/usr/local/go/bin
# Distributions switch this off; go.mod names the version that is needed.
export GOTOOLCHAIN = auto
# Tests mount file systems: as another user, make asks for root.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH,GOTOOLCHAIN,GOFLAGS,HOME)
# A checkout that git will not read (another owner, an archive) builds without a stamp.
ifneq ($(shell git status --porcelain >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS = -buildvcs=false
endif

.PHONY: build demo test test-slow test-emulated race lint modules fuzz bench bench-xts bench-kms generate install uninstall clean go

build: go
	CGO_ENABLED=0 go build -trimpath -o $(PROGRAM) ./cmd/vmcryptfs

demo: build
	scripts/packages demo
	demo/demo $(PROGRAM)

test: go
	scripts/packages test
	$(AS_ROOT) scripts/tally \
		'go test -count=1 -timeout 15m ./...' \
		'cd cryptoblk/gen && go vet ./...' \
		'cd cryptoblk/gen && go test ./...' \
		'go test -tags purego ./cryptoblk'

# Everything that takes long: whole rounds of kills, power losses and virtual machines.
test-slow: go
	scripts/packages test
	$(AS_ROOT) env VMCRYPTFS_SLOW=1 scripts/tally \
		'go test -count=1 -timeout 40m ./integration/... ./fs/cryptfile/... ./fs/rekey'

# The cipher on CPUs that this host does not have.
test-emulated: go
	scripts/packages emulated
	cryptoblk/emulated

# Everything but the tests that mount: they start the program as a user does. A program under the
# detector waits for a second before it ends, which the scripts' thousand commands need not do.
race: go
	scripts/packages race
	GORACE=atexit_sleep_ms=0 go test -race -short -timeout 20m $$(go list ./... | grep -v -e /integration -e /bench)

lint: go
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt -w $$unformatted"; exit 1; }
	go vet ./...
	go vet -tags purego ./cryptoblk
	go vet -tags bench ./cryptoblk
	GOARCH=arm64 go vet ./cryptoblk
	go run $(STATICCHECK) ./...

# What the other targets have Go download.
modules: go
	go list -deps -test ./... >/dev/null
	cd cryptoblk/gen && go list -deps -test ./... >/dev/null
	go run $(STATICCHECK) -version

fuzz: go
	scripts/fuzz $(FUZZTIME)

bench: go
	scripts/packages bench
	$(AS_ROOT) bash bench/run

bench-xts: go
	scripts/packages bench
	go test -tags bench -run '^TestSpeed$$' -count=1 -v ./cryptoblk

# How long an outage of key servers holds a request up: about 6 minutes.
bench-kms: go
	go test -run '^$$' -bench Failover -benchtime 20x -timeout 30m ./keys/kmip

generate: go
	go generate ./cryptoblk

# /sbin, where mount(8) looks for the helper of its type.
install: build
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/vmcryptfs
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/vmcryptfs $(DESTDIR)/sbin/mount.fuse.vmcryptfs

# Data stays: settings, keys, logs, datastores.
uninstall:
	DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) scripts/uninstall

clean:
	rm -rf bin

go:
	@scripts/need-go
