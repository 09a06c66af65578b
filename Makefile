# The one door for people; continuous integration calls the same targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
MODEL ?= smollm2-135m-instruct

.PHONY: help run build cuda gpu-check test test-rust chaos test-clients structured lint fmt bench bench-jobs bench-inference \
	soak-inference clients model layers audit fuzz clean

help: ## List what can be made
	@echo "Opossum Search: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build, fetch the model, start on 127.0.0.1:8000, answer a first question
	@scripts/run.sh

build: ## Build the release binary
	$(CARGO) build --release --bin opossum

cuda: ## Build the release binary with CUDA: make cuda
	@data=$$(scripts/cuda/llvm.sh); XDG_DATA_HOME=$$data $(CARGO) build --release --bin opossum --features cuda

gpu-check: ## Check and measure a GPU against the CPU: make gpu-check DEVICE=cuda:0
	@scripts/gpu-check

test: ## Install what the tests need, run every suite
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory test-clients

test-rust: ## Unit, property and end-to-end suites
	@scripts/test-setup.sh
	@scripts/test-rust.sh

chaos: ## Break what the queue stands on, for five minutes: make chaos SECONDS=300 JOBS=20000 SEED=7
	@scripts/test-setup.sh
	OPOSSUM_CHAOS_SECONDS=$(or $(SECONDS),300) OPOSSUM_CHAOS_JOBS=$(or $(JOBS),20000) OPOSSUM_REQUIRE_POSTGRES=1 \
		$(if $(SEED),OPOSSUM_TEST_SEED=$(SEED)) $(CARGO) test --test jobs_chaos no_confirmed -- --nocapture

test-clients: ## The official client libraries against the real service
	@scripts/test-setup.sh clients
	@tests/clients/run.sh

structured: ## Ten schemas, fifty answers of the real model to each: all must follow
	@scripts/test-setup.sh
	OPOSSUM_REQUIRE_MODEL=1 $(CARGO) test --package opossum-inference --features testing --test structured -- --ignored --nocapture

lint: layers ## Format, clippy, layers, texts: nothing is let through
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/check-text.sh

fmt: ## Format all code
	$(CARGO) fmt --all

bench: ## Run the benchmarks
	$(CARGO) bench --workspace

bench-jobs: ## The queue: jobs a second, latency, recovery from a killed broker
	@scripts/test-setup.sh
	$(CARGO) build --release --package opossum --package opossum-testkit --bins
	@$(TARGET_DIR)/release/bench-jobs $(TARGET_DIR)/release/opossum

bench-inference: ## The embedded engine beside llama.cpp and onnxruntime: make bench-inference ARGS="--rounds 5"
	@python3 scripts/bench/inference.py $(ARGS)

soak-inference: build ## Thousands of requests to the embedded models: fails when memory grows
	@python3 scripts/bench/soak.py $(TARGET_DIR)/release/opossum $(ARGS)

clients: ## Install the client libraries that the tests use into .venv
	@scripts/test-setup.sh clients

model: build ## Fetch a model: make model MODEL=smollm2-135m-instruct
	$(TARGET_DIR)/release/opossum models pull $(MODEL)

layers: ## Check that dependencies run one way
	scripts/check-layers.py

audit: ## Check licences, sources and advisories of all dependencies
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed: cargo install --locked cargo-deny"; exit 1; fi

fuzz: ## Feed the readers of untrusted files with made-up ones: make fuzz SECONDS=3600 TARGET=gguf
	@scripts/fuzz.sh $(or $(TARGET),gguf) $(or $(SECONDS),60)

clean: ## Remove what was built; models and state stay
	$(CARGO) clean
	rm -rf .venv
