# Thin over `cargo xtask`: what people and machines type.

PREFIX ?= /usr/local
XTASK := cargo xtask

.PHONY: help demo test full conformance bench build install clean

help:
	@echo 'make demo         see Corten at work, on a bare Debian machine'
	@echo 'make test         everything that must hold before a commit'
	@echo 'make full         the same and everything that takes longer'
	@echo 'make conformance  critest against the daemon'
	@echo 'make bench        the figures of SPECIFICATION.md'
	@echo 'make build        target/dist: cortend, corten, corten-shim'
	@echo 'make install      into DESTDIR and PREFIX ($(PREFIX))'

demo:
	$(XTASK) demo

test:
	$(XTASK) setup
	$(XTASK) test

full: test
	$(XTASK) conformance

conformance:
	$(XTASK) setup
	$(XTASK) conformance

bench:
	$(XTASK) bench

build:
	$(XTASK) build

# The shim lies beside the daemon, which looks for it there.
install:
	install -D --target-directory=$(DESTDIR)$(PREFIX)/bin target/dist/cortend target/dist/corten target/dist/corten-shim

clean:
	cargo clean
