#!/usr/bin/env bash
# Runs the official client libraries against the real service. `scripts/test-setup.sh clients` installs them.
set -euo pipefail
cd "$(dirname "$0")/../.."

echo "==> Client libraries against the service"
cargo build --quiet --bin opossum
export OPOSSUM_BIN="${CARGO_TARGET_DIR:-target}/debug/opossum"
exec .venv/bin/python -m unittest discover --start-directory tests/clients --pattern '*_client.py' --verbose
