# Third-party builds, Kafka's jars and the tests' Python packages are cached outside the checkout.
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/gristmill
export CARGO_TARGET_DIR ?= $(CACHE)/target
GRISTMILL := $(CARGO_TARGET_DIR)/debug/gristmill
PYTHON ?= python3
VENV := $(CACHE)/venv
# An independent emulator of Cloud Storage. Without Go 1.25 or newer its tests are skipped; not in CI.
EMULATOR := $(if $(shell go version 2>/dev/null | grep -E 'go1\.(2[5-9]|[3-9][0-9])'),$(CACHE)/go/bin/fake-gcs-server)
export GRISTMILL_FAKE_GCS_SERVER ?= $(EMULATOR)
# The same of BigQuery. Without CPython 3.13, of which its wheels are, its tests are skipped; not in CI.
PYTHON313 := $(shell ./.ci/python313)
LOCAL_BIGQUERY := $(if $(PYTHON313),$(CACHE)/local-bigquery)
export GRISTMILL_LOCAL_BIGQUERY ?= $(if $(LOCAL_BIGQUERY),$(LOCAL_BIGQUERY)/bin/python)
EMULATORS := $(EMULATOR) $(if $(LOCAL_BIGQUERY),$(LOCAL_BIGQUERY)/ready)
# Components of transforms in Python and JavaScript. Without Node 20 or newer those of JavaScript are skipped; not in CI.
NPM := $(CACHE)/npm
SCRIPTS := $(VENV)/ready $(if $(shell command -v npm),$(NPM)/ready)
SCRIPTS_PATH := $(VENV)/bin:$(NPM)/node_modules/.bin

# The Python package: what it is built and tested with, and the wheel as it is installed for its tests.
PYTHON_TOOLS := $(CACHE)/python
WHEELS := $(CACHE)/wheels

# What has `unsafe` in it and can run natively; rustc has the runtime of AddressSanitizer with it, behind a flag.
SANITIZED := gristmill gristmill-records gristmill-transform
sanitize: need ## Tests of the crates with unsafe code, and librdkafka, under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CFLAGS="-fsanitize=address" CXXFLAGS="-fsanitize=address" \
	ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR=$(CACHE)/sanitize \
	cargo test --target $$(rustc -vV | sed -n 's/^host: //p') $(SANITIZED:%=--package %) --lib --tests

.DEFAULT_GOAL := help
.PHONY: help build demo test lint unit guests wheel python python-reference e2e soak fuzz sanitize bench-hop bench-transform bench-languages bench-sink bench-bigquery bench-python example-bigquery need need-tests clean-demo

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
test: need-tests guests $(SCRIPTS) $(EMULATORS) ## Every test: a real Apache Kafka, real components, SIGKILL
	PATH="$(SCRIPTS_PATH):$$PATH" GRISTMILL_PYTHON=$(VENV)/bin/python cargo test --workspace
	$(MAKE) --no-print-directory python

unit: $(SCRIPTS) $(EMULATORS) ## Tests of the crates, without a real Kafka
	PATH="$(SCRIPTS_PATH):$$PATH" cargo test --workspace --lib --bins --test it

guests: ## Tests of the SDKs and the example transforms, natively
	CARGO_TARGET_DIR=$(CACHE)/guests-native cargo test --manifest-path examples/transforms/Cargo.toml
	PYTHONPATH=transform-sdk/python $(PYTHON) -B -m unittest discover --quiet --start-directory transform-sdk/python/tests
	if command -v node >/dev/null; then cd transform-sdk/js && node --test tests; fi

e2e: $(VENV)/ready $(EMULATOR) ## End-to-end tests on a real Apache Kafka
	cargo test --workspace --no-run
	GRISTMILL_PYTHON=$(VENV)/bin/python cargo test --workspace --test e2e -- --nocapture

# maturin changes the library that cargo made, and cannot do it twice; and two checkouts that share the folder give it one name.
wheel: need $(PYTHON_TOOLS)/ready ## The Python package as a wheel, for release: PROFILE=release
	rm -rf $(CARGO_TARGET_DIR)/maturin $(CARGO_TARGET_DIR)/*/deps/lib_lib.so $(WHEELS)
	PATH="$(PYTHON_TOOLS)/bin:$$PATH" maturin build --quiet --profile $(or $(PROFILE),dev) $(if $(filter release,$(PROFILE)),--strip) --manifest-path python/Cargo.toml --out $(WHEELS)
	@ls $(WHEELS)/*.whl

python: need-tests wheel ## Tests of the Python package, as it is installed, on a real Kafka: ARGS="-k consumer"
	cargo build --workspace --examples
	$(PYTHON_TOOLS)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	cd python && GRISTMILL_TEST_KAFKA=$(CARGO_TARGET_DIR)/debug/examples/kafka GRISTMILL_WHEEL=$$(echo $(WHEELS)/*.whl) \
	  $(PYTHON_TOOLS)/bin/pytest --quiet -p no:cacheprovider $(ARGS)

python-reference: wheel ## The Python package's API reference, as pages in python-reference/
	$(PYTHON_TOOLS)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(PYTHON_TOOLS)/bin/pdoc --docformat restructuredtext --no-show-source --output-directory python-reference gristmill gristmill.errors gristmill.testing

MINUTES ?= 10
soak: $(VENV)/ready $(EMULATOR) ## Random faults for MINUTES=10; also SEED, PROTOCOL=cooperative|range|consumer, PLACE=folder|fake-gcs|fake-gcs-server|fake-bigquery
	cargo test --workspace --no-run
	GRISTMILL_PYTHON=$(VENV)/bin/python GRISTMILL_SEED=$(SEED) \
	GRISTMILL_SOAK_MINUTES=$(MINUTES) GRISTMILL_SOAK_PROTOCOL=$(PROTOCOL) GRISTMILL_SOAK_PLACE=$(PLACE) \
	cargo test --workspace --test e2e -- --ignored --exact faults::soak --nocapture

FUZZ ?= columns edits component
fuzz: ## What strangers write, under AddressSanitizer: FUZZ="columns edits component", MINUTES=10 each; needs cargo-fuzz
	cd smt-runtime && for target in $(FUZZ); do \
	  mkdir -p $(CACHE)/fuzz/corpus/$$target && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(CACHE)/fuzz \
	  ASAN_OPTIONS=handle_segv=0:handle_sigill=0:handle_sigfpe=0:handle_sigtrap=0:detect_leaks=0 \
	  cargo fuzz run $$target $(CACHE)/fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$$(($(MINUTES) * 60)) -timeout=120 -rss_limit_mb=6000 || exit 1; done

lint: ## Formatting and clippy; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench-hop: ## What a transform costs a record, against the same code natively
	cargo bench -p gristmill-smt --bench hop

bench-transform: ## What a transform of typed columns costs a row, against native code and Kafka Connect's classes
	cargo bench -p gristmill-smt --bench columns

bench-languages: $(SCRIPTS) ## What the same transform costs in Rust, JavaScript and Python, and in a peer
	PATH="$(SCRIPTS_PATH):$$PATH" cargo bench -p gristmill-smt --bench languages

# One selection of packages for both, as above: the benchmark runs the command that lies beside it.
BENCH_SINK := --package gristmill-cli --package gristmill-tests --bench sink
bench-sink: need-tests ## What a record costs from Kafka into Parquet, against bare libraries and Kafka Connect
	cargo build --release $(BENCH_SINK) --bin gristmill
	cargo bench $(BENCH_SINK) -- $(PARTS)

bench-python: PROFILE := release
bench-python: need-tests wheel ## What a record costs in Python, beside confluent-kafka, aiokafka and fastavro: PARTS="consume avro produce transform", SCALE=1
	cargo build --workspace --examples
	$(PYTHON_TOOLS)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	GRISTMILL_TEST_KAFKA=$(CARGO_TARGET_DIR)/debug/examples/kafka PARTS="$(PARTS)" SCALE=$(or $(SCALE),1) ROUNDS=$(or $(ROUNDS),3) \
	  $(PYTHON_TOOLS)/bin/python python/benches/bench.py

MODE ?= exactly-once
example-bigquery: ## Run examples/bigquery/$(MODE).yaml (exactly-once, at-least-once, cdc) against an embedded Kafka and a fake
	cargo run --quiet --package gristmill-tests --example bigquery -- examples/bigquery/$(MODE).yaml

bench-bigquery: $(EMULATORS) ## What a row costs on its way to BigQuery, against prost and Google's Python library; bytes with and without gzip
	cargo bench --package gristmill-tests --bench bigquery

# The independent reader of the end-to-end tests.
$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r tests/requirements.txt
	touch $@

$(PYTHON_TOOLS)/ready: python/requirements.txt
	$(PYTHON) -m venv $(PYTHON_TOOLS)
	$(PYTHON_TOOLS)/bin/pip install --quiet -r python/requirements.txt
	touch $@

# DuckDB's extensions as wheels, and the DuckDB that they are of: it asks for a newer one, which has none. So nothing is
# downloaded while it runs.
$(CACHE)/local-bigquery/ready: tests/local-bigquery.txt
	$(PYTHON313) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet local-bigquery==0.4.0
	$(@D)/bin/pip install --quiet --no-deps -r tests/local-bigquery.txt
	touch $@

$(NPM)/ready: tests/package.json tests/package-lock.json
	mkdir -p $(NPM)
	cp tests/package.json tests/package-lock.json $(NPM)
	cd $(NPM) && npm ci --no-audit --no-fund --loglevel=error
	touch $@

$(CACHE)/go/bin/fake-gcs-server:
	GOBIN=$(@D) GOPROXY=$$(go env GOPROXY | sed 's/,direct//') go install github.com/fsouza/fake-gcs-server@v1.56.0

clean-demo: ## Remove what `make demo` wrote
	rm -rf demo-out
