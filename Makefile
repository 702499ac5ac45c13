# Third-party builds, Kafka's jars and the tests' Python packages are cached outside the checkout.
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/gristmill
export CARGO_TARGET_DIR ?= $(CACHE)/target
GRISTMILL := $(CARGO_TARGET_DIR)/debug/gristmill
PYTHON ?= python3
VENV := $(CACHE)/venv

.DEFAULT_GOAL := help
.PHONY: help build demo test lint unit guests e2e bench-hop bench-sink need need-tests clean-demo

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

need: ## Say which tools the build needs and does not find
	@./.ci/need

need-tests: ## Say which tools the tests need and do not find
	@./.ci/need tests

build: need ## Build the command `gristmill`
	cargo build --package gristmill-cli
	@echo "built $(GRISTMILL)"

demo: need clean-demo ## Orders from an embedded Kafka through a WebAssembly transform into Parquet
	cargo build --package gristmill-cli
	$(GRISTMILL) demo --folder demo-out --transform examples/transforms/orders

# One selection of packages for all tests: another one would mean other features, and another build of everything.
test: need-tests guests $(VENV)/ready ## Every test: a real Apache Kafka, real components, SIGKILL
	GRISTMILL_PYTHON=$(VENV)/bin/python cargo test --workspace

unit: ## Tests of the crates, without a real Kafka
	cargo test --workspace --lib --bins --test it

guests: ## Tests of the example transforms, natively
	CARGO_TARGET_DIR=$(CACHE)/guests-native cargo test --manifest-path examples/transforms/Cargo.toml

e2e: $(VENV)/ready ## End-to-end tests on a real Apache Kafka
	cargo test --workspace --no-run
	GRISTMILL_PYTHON=$(VENV)/bin/python cargo test --workspace --test e2e -- --nocapture

lint: ## Formatting and clippy; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench-hop: ## What a transform costs a record, against the same code natively
	cargo bench -p gristmill-smt --bench hop

# One selection of packages for both, as above: the benchmark runs the command that lies beside it.
BENCH_SINK := --package gristmill-cli --package gristmill-tests --bench sink
bench-sink: need-tests ## What a record costs from Kafka into Parquet, against bare libraries and Kafka Connect
	cargo build --release $(BENCH_SINK) --bin gristmill
	cargo bench $(BENCH_SINK) -- $(PARTS)

# The independent reader of the end-to-end tests.
$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r tests/requirements.txt
	touch $@

clean-demo: ## Remove what `make demo` wrote
	rm -rf demo-out
