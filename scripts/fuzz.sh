#!/usr/bin/env bash
# Runs a fuzz target for some seconds: fuzz.sh gguf|safetensors|template SECONDS. Finds are left in fuzz/artifacts, what was learnt
# in fuzz/corpus; both are ignored by git. A find becomes a seed in fuzz/seeds, which the ordinary tests run too.
# Needs cargo-fuzz (cargo install --locked cargo-fuzz) and a C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${1:-gguf}"
seconds="${2:-60}"
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed: cargo install --locked cargo-fuzz" >&2
    exit 1
fi
# The same versions of everything as in the product.
[ -e fuzz/Cargo.lock ] || cp Cargo.lock fuzz/Cargo.lock
mkdir -p "fuzz/corpus/$target"
# The coverage instrumentation needs a flag that the stable compiler has, but hides.
export RUSTC_BOOTSTRAP=1
# Safe code needs no address sanitizer, and runs several times faster without; overflow and assertions are checked.
exec cargo fuzz run --sanitizer none --debug-assertions --fuzz-dir fuzz "$target" \
    "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=60 -rss_limit_mb=2048 -print_final_stats=1
