# The only list of commands. `make` alone builds the static binary; `make demo`
# and `make test` do all of their own set-up.

TARGET  := x86_64-unknown-linux-musl
BIN     := target/$(TARGET)/release/bbot-agent
PREFIX  ?= /usr/local
DESTDIR ?=
UNITDIR ?= $(PREFIX)/lib/systemd/system

CARGO   ?= cargo
# Paths of the building machine stay out of the binary.
REMAP   := --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo --remap-path-prefix=$(CURDIR)=.
RELEASE := --release --locked --config 'build.rustflags="$(REMAP)"'

.PHONY: all build toolchain setup check test demo bench torture fuzz install clean

all: build

## The static binary.
build: toolchain
	$(CARGO) build $(RELEASE) --bin bbot-agent
	@echo "built $(BIN)"

# The musl target of the toolchain, and a C compiler for ring.
toolchain:
	@tests/tools/setup build

## rustfmt, clippy and docs without warnings; layering; the binary is static; ratchets.
check: build
	tests/tools/check $(BIN)

## Every test. Without root or btrfs the tests that need them are skipped, and counted.
test: build
	@tests/tools/setup test
	tests/tools/test

## Bootstraps a real machine, builds in it and prints the result.
demo: build
	@tests/tools/setup demo
	tests/tools/demo $(BIN)

## What everything costs, side by side with the usual way to do it.
bench: build
	@tests/tools/setup bench
	tests/tools/bench $(BIN)

## The release binary killed at every system call that changes something.
torture: build
	@tests/tools/setup test
	tests/tools/torture $(BIN)

## Every fuzz target for SECONDS each (default 60).
fuzz:
	@tests/tools/setup fuzz
	tests/tools/fuzz

# As root there may be no Rust: what was built is installed then.
install: $(if $(shell command -v $(CARGO)),build)
	@test -x $(BIN) || { echo "error: no $(BIN): run make first, as a user with Rust" >&2; exit 1; }
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/bbot-agent
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BIN) --print-unit service > $(DESTDIR)$(UNITDIR)/bbot-agent@.service
	$(BIN) --print-unit once > $(DESTDIR)$(UNITDIR)/bbot-agent-once@.service
	$(BIN) --print-unit timer > $(DESTDIR)$(UNITDIR)/bbot-agent-once@.timer
	sed -i 's|/usr/local/bin/|$(PREFIX)/bin/|' $(DESTDIR)$(UNITDIR)/bbot-agent*@.service
	$(BIN) --print-man > $(DESTDIR)$(PREFIX)/share/man/man1/bbot-agent.1
	$(BIN) --print-completion bash \
	  > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/bbot-agent

clean:
	$(CARGO) clean
