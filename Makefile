# The only list of commands. `make` alone builds the static binary; `make demo`
# and `make test` do all of their own set-up.

# Or that of another architecture, for which `build` cross-compiles.
TARGET  := $(shell uname -m)-unknown-linux-musl
BIN     := target/$(TARGET)/release/bbot-agent
PREFIX  ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR ?= /etc
SUITE   ?= bookworm

.PHONY: all build setup check test fresh demo machine machine-test bench torture fuzz install clean

all: build

## The static binary.
build:
	@tests/tools/setup build $(TARGET)
	@tests/tools/build $(TARGET)

## rustfmt, clippy and docs without warnings; layering; the binary is static; ratchets.
check: build
	@tests/tools/setup check
	tests/tools/check $(BIN)

## Every test. Without root or btrfs the tests that need them are skipped, and counted.
test: build
	@tests/tools/setup test
	tests/tools/test

## README's two commands on fresh roots of Debian 12 and 13.
fresh:
	@tests/tools/setup fresh
	tests/tools/fresh

## Bootstraps a real machine, builds in it and prints the result.
demo: build
	@tests/tools/setup demo
	tests/tools/demo $(BIN)

## A machine of Debian 12, or with SUITE=trixie 13, to be put below --machines.
machine:
	@tests/tools/setup machine
	@tests/tools/machine $(SUITE)

## A package of Debian's sources, built and tested in that machine.
machine-test: build
	@tests/tools/setup machine-test
	tests/tools/machine-test $(BIN) $(SUITE)

## What everything costs, side by side with the usual way to do it.
bench: build
	@tests/tools/setup bench
	tests/tools/bench $(BIN)

## The release binary killed at every system call that changes something; real guests of
## agents that share a host.
torture: build
	@tests/tools/setup test
	tests/tools/torture $(BIN)

## Every fuzz target for SECONDS each (default 60).
fuzz:
	@tests/tools/setup fuzz
	tests/tools/fuzz

# Root may have no Rust: then the binary that a user has built is installed, if it is of
# these sources.
install:
	@. tests/tools/rust && if command -v cargo >/dev/null; then $(MAKE) build; fi
	@test -x $(BIN) || { echo "error: no $(BIN): run make first" >&2; exit 1; }
	@test -z "$$(find src Cargo.toml Cargo.lock -newer $(BIN))" || \
	  { echo "error: $(BIN) is older than the sources: run make first" >&2; exit 1; }
	tests/tools/install $(BIN) "$(DESTDIR)" "$(PREFIX)" "$(UNITDIR)" "$(SYSCONFDIR)"

clean:
	cargo clean
