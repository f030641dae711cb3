# Everything this project does has a verb here: `make help`. What a verb needs, it installs.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Debian's packages, by what needs them.
BUILD_PACKAGES := liburing-dev libcap-dev libnl-3-dev libnl-route-3-dev pkg-config
LAB_PACKAGES := iproute2 iputils-ping iperf3 util-linux python3
BENCH_PACKAGES := $(LAB_PACKAGES) socat ethtool python3-matplotlib
VM_PACKAGES := qemu-system-x86 qemu-system-common busybox-static xz-utils
TEST_PACKAGES := $(LAB_PACKAGES) python3-pytest python3-scapy tcpdump nftables ethtool

# sudo resets PATH, so a toolchain that only the user's PATH knows is looked for where it usually is.
SWIFT := $(firstword $(shell command -v swift) \
	$(wildcard /opt/swift/usr/bin/swift /usr/local/swift/usr/bin/swift /usr/share/swift/usr/bin/swift \
	$(if $(SUDO_USER),/home/$(SUDO_USER)/.local/share/swiftly/bin/swift)))
# Debian's own, which python3-scapy and python3-pytest belong to.
# -B: under sudo it would leave its caches in the checkout, as root.
PYTHON := /usr/bin/python3 -B
TUND := .build/release/tund

# Under sudo the checkout's owner builds, so that .build stays theirs.
UID := $(shell id -u)
OWNER := $(shell stat -c %U .)
AS_OWNER := $(if $(filter 0,$(UID)),$(if $(filter root UNKNOWN,$(OWNER)),,\
	runuser -u $(OWNER) -- env HOME=$(shell getent passwd $(OWNER) | cut -d: -f6)))

# One binary with Swift's library inside: a host that runs it needs no toolchain.
RELEASE := -c release --static-swift-stdlib

# $(call require,PACKAGES): installs those that are missing.
define require
missing="$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done)"; \
if [ -n "$$missing" ]; then \
	[ "$(UID)" = 0 ] || { echo "make $@ needs root to install" $$missing "(sudo make $@)" >&2; exit 1; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
fi
endef

# $(call root,WHY)
define root
[ "$(UID)" = 0 ] || { echo "make $@ needs root: $(1) (sudo make $@)" >&2; exit 1; }
endef

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: toolchain
toolchain:
	@[ -n "$(SWIFT)" ] || { echo "no swift in PATH: install the Swift 6.2 toolchain or later from https://swift.org/install" >&2; exit 1; }

.PHONY: build
build: toolchain ## the release binary, .build/release/tund
	@$(call require,$(BUILD_PACKAGES))
	@$(AS_OWNER) $(SWIFT) build $(RELEASE) --product tund

.PHONY: demo
demo: ## two hosts in namespaces: ping, TCP, a file, a report (root)
	@$(call root,it makes network namespaces)
	@$(call require,$(BUILD_PACKAGES) $(LAB_PACKAGES))
	@$(MAKE) --no-print-directory build
	@$(PYTHON) netns-tests/demo.py

.PHONY: test
test: ## all tests: units, namespaces, then beside kernel sit (root)
	@$(call root,it makes network namespaces)
	@$(call require,$(BUILD_PACKAGES) $(TEST_PACKAGES) $(VM_PACKAGES))
	@$(MAKE) --no-print-directory lint test-unit test-netns
	@code=0; $(TEST_SIT) || code=$$?; \
	if [ $$code = 77 ]; then echo "**** SKIPPED: test-sit, since no kernel that has sit can be had (see above) ****"; else exit $$code; fi

.PHONY: test-unit
test-unit: toolchain ## unit tests only
	@$(call require,$(BUILD_PACKAGES))
	@$(AS_OWNER) $(SWIFT) test --quiet

.PHONY: test-netns
test-netns: ## namespace tests only; ARGS goes to pytest (root)
	@$(call root,it makes network namespaces)
	@$(call require,$(BUILD_PACKAGES) $(TEST_PACKAGES))
	@$(MAKE) --no-print-directory build
	@CC=$(dir $(SWIFT))clang $(PYTHON) -m pytest -p no:cacheprovider --ignore netns-tests/sit netns-tests $(ARGS)

# The tests that need kernel sit, on one: the oracle, and the peer at the other end. Exit code 77 if there is no such kernel.
TEST_SIT = results=$$(mktemp -d); trap 'rm -rf "$$results"' EXIT; VM_TIMEOUT=$${VM_TIMEOUT:-900} vm/run "$$results" \
	sh -c 'modprobe sit && exec "$$@"' sh env SEED=$(SEED) $(PYTHON) -m pytest -p no:cacheprovider netns-tests/sit $(ARGS)

.PHONY: test-sit
test-sit: ## only those beside kernel sit, in a virtual machine; ARGS goes to pytest, SEED repeats random cases (root)
	@$(call root,it runs a virtual machine)
	@$(call require,$(BUILD_PACKAGES) $(TEST_PACKAGES) $(VM_PACKAGES))
	@$(MAKE) --no-print-directory build
	@$(TEST_SIT)

.PHONY: bench
bench: ## throughput, loss, delay and CPU beside other tunnels; ARGS goes to bench/throughput.py (root)
	@$(call root,it makes network namespaces)
	@$(call require,$(BUILD_PACKAGES) $(BENCH_PACKAGES))
	@$(MAKE) --no-print-directory build
	@CC=$(dir $(SWIFT))clang $(PYTHON) bench/throughput.py $(ARGS)

.PHONY: bench-sit
bench-sit: ## the same beside kernel sit, on a Debian kernel in a virtual machine (root)
	@$(call root,it runs a virtual machine)
	@$(call require,$(BUILD_PACKAGES) $(BENCH_PACKAGES) $(VM_PACKAGES))
	@$(MAKE) --no-print-directory build
	@mkdir -p bench/results/sit
	@VM_TIMEOUT=$${VM_TIMEOUT:-1500} vm/run bench/results/sit $(PYTHON) $(CURDIR)/bench/throughput.py --base sit --no-plots \
		--contenders veth,sit,tund,tund-no-offload --loads tcp-1,udp-1400-flood,rtt-idle --sections as-is \
		--results $(CURDIR)/bench/results/sit $(ARGS)

.PHONY: bench-micro
bench-micro: toolchain ## ns and allocations per packet, the kernel left out
	@$(call require,$(BUILD_PACKAGES))
	@$(AS_OWNER) $(SWIFT) build $(RELEASE) --product bench-micro
	@.build/release/bench-micro

.PHONY: lint
lint: toolchain ## format, and TunnelCore's purity
	@if grep -rnE '^[^/]*\bimport ' Sources/TunnelCore; then \
		echo "lint: TunnelCore imports nothing: no system calls, no Foundation, no Glibc" >&2; exit 1; fi
	@if grep -rnlE 'unsafeLoad|UncheckedByteOffset' Sources/TunnelCore | grep -v '/Wire/Bytes.swift$$'; then \
		echo "lint: unchecked loads and stores belong into Wire/Bytes.swift" >&2; exit 1; fi
	@$(AS_OWNER) $(SWIFT) format lint --strict --parallel --recursive Package.swift Sources Tests

.PHONY: format
format: toolchain ## rewrite the sources as lint wants them
	@$(AS_OWNER) $(SWIFT) format --in-place --parallel --recursive Package.swift Sources Tests

.PHONY: clean
clean: ## remove what was built
	rm -rf .build .build-vm bench/results
