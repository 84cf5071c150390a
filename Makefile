# Thin over `cargo xtask`: what people and machines type.

PREFIX ?= /usr/local
XTASK := cargo xtask

.PHONY: help linker demo test full conformance bench build install clean

help:
	@echo 'make demo         see Corten at work, on a bare Debian machine'
	@echo 'make test         everything that must hold before a commit'
	@echo 'make full         the same and everything that takes longer'
	@echo 'make conformance  critest against the daemon'
	@echo 'make bench        the figures of SPECIFICATION.md'
	@echo 'make build        target/dist: cortend, corten, corten-shim'
	@echo 'make install      into DESTDIR and PREFIX ($(PREFIX))'

# Rust brings no linker.
linker:
	@command -v cc >/dev/null || { apt-get update -qq && apt-get install -y --no-install-recommends gcc libc6-dev; }

demo: linker
	$(XTASK) demo

test: linker
	$(XTASK) setup
	$(XTASK) test

full: test
	$(XTASK) conformance

conformance: linker
	$(XTASK) setup
	$(XTASK) conformance

bench: linker
	$(XTASK) bench

build: linker
	$(XTASK) build

# The shim lies beside the daemon, which looks for it there.
install:
	install -D --target-directory=$(DESTDIR)$(PREFIX)/bin target/dist/cortend target/dist/corten target/dist/corten-shim

clean:
	cargo clean
