#!/usr/bin/env bash
# Runs the Rust suites: with cargo-nextest where it is installed, else with cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."

# The suites that run a model must not be skipped where test-setup.sh has fetched it.
export OPOSSUM_REQUIRE_MODEL="${OPOSSUM_REQUIRE_MODEL:-1}"
# Nor those that need a server.
export OPOSSUM_REQUIRE_POSTGRES="${OPOSSUM_REQUIRE_POSTGRES:-1}"

if cargo nextest --version >/dev/null 2>&1; then
    echo "==> cargo nextest run --workspace"
    cargo nextest run --workspace
    echo "==> cargo test --workspace --doc"
    cargo test --quiet --workspace --doc
else
    echo "==> cargo test --workspace"
    cargo test --workspace
fi
