# Thin over `cargo xtask`: what people and machines type.

PREFIX ?= /usr/local
# Where the daemon looks for the shim (`shim` in its configuration).
LIBEXEC ?= /usr/libexec/corten
XTASK := cargo xtask

.PHONY: help linker demo test vm full conformance kubelet bench build install clean

help:
	@echo 'make demo         see Corten at work, on a bare Debian machine'
	@echo 'make test         everything that must hold before a commit'
	@echo 'make vm           tests that need cgroup v2, systemd or AppArmor, in a virtual machine'
	@echo 'make full         the same and everything that takes longer'
	@echo 'make conformance  critest: every spec of CRI that this machine can run'
	@echo 'make kubelet      a real kubelet keeps pods on Corten (builds one: minutes)'
	@echo 'make bench        Corten and its peers side by side, into target/bench'
	@echo '                  (PUBLISH=1: into docs/benchmarks)'
	@echo 'make build        target/dist: cortend, corten, corten-shim'
	@echo 'make install      what was built, into DESTDIR and PREFIX ($(PREFIX))'

# Rust brings no linker.
linker:
	@command -v cc >/dev/null || { apt-get update -qq && apt-get install -y --no-install-recommends gcc libc6-dev; }

demo: linker
	$(XTASK) demo

test: linker
	$(XTASK) setup
	$(XTASK) test

vm: linker
	$(XTASK) setup
	$(XTASK) vm

# Whole pods again and again: what fails once in a while, fails here.
full: test
	$(XTASK) vm
	for round in 1 2 3; do cargo test -p corten-tests || exit 1; done
	$(XTASK) conformance --handler runc
	$(XTASK) conformance --handler runc --websocket --seed 1
	$(XTASK) conformance --parallel 4 --seed 2
	$(XTASK) conformance --parallel 4 --seed 3 --websocket
	$(XTASK) kubelet
	$(XTASK) fuzz
	$(XTASK) bench

conformance: linker
	$(XTASK) setup
	$(XTASK) conformance
	$(XTASK) conformance --websocket

kubelet: linker
	$(XTASK) setup
	$(XTASK) kubelet

bench: linker
	$(XTASK) bench $(if $(PUBLISH),--publish)

build: linker
	$(XTASK) build

# Of what `make build` made. systemd reads units of /usr and of /usr/local.
install:
	@test -e target/dist/cortend || { echo 'nothing is built yet: make build' >&2; exit 1; }
	install -D -t $(DESTDIR)$(PREFIX)/bin target/dist/cortend target/dist/corten
	install -D -t $(DESTDIR)$(LIBEXEC) target/dist/corten-shim
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's,^ExecStart=/usr/,ExecStart=$(PREFIX)/,' dist/cortend.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/cortend.service
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/dist/corten completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/corten
	@test -n '$(DESTDIR)' -o ! -d /run/systemd/system || systemctl daemon-reload

clean:
	cargo clean
