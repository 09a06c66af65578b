#!/usr/bin/env bash
# Builds the service, fetches the models that answer and embed without any network, starts it, asks a first question
# and stays in the foreground. Ctrl-C stops it. Asks nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

export HOST="${HOST:-127.0.0.1}" PORT="${PORT:-8000}"
models=(smollm2-135m-instruct all-minilm-l6-v2)
url="http://$HOST:$PORT"
opossum="${CARGO_TARGET_DIR:-target}/release/opossum"

say() { printf '\n==> %s\n' "$*"; }

if (exec 3<>"/dev/tcp/$HOST/$PORT") 2>/dev/null; then
    echo "Something answers on $HOST:$PORT already. Stop it, or choose another port: make run PORT=8001" >&2
    exit 1
fi

say "Building the release binary (a first build takes several minutes)"
cargo build --release --bin opossum

say "Fetching ${models[*]} (about 180 MB, checked by SHA-256; nothing is fetched twice)"
"$opossum" models pull "${models[@]}"

say "Starting the service on $url"
"$opossum" serve &
service=$!
# An interrupt ends it without the delay that load balancers need.
trap 'kill -INT "$service" 2>/dev/null || true' INT
trap 'kill -TERM "$service" 2>/dev/null || true' TERM
trap 'kill -INT "$service" 2>/dev/null || true; wait "$service" 2>/dev/null || true' EXIT

# Python is there wherever pip is; curl may not be.
if python3 scripts/first_answer.py "$url" "$service"; then
    say "The service runs. Ctrl-C stops it."
else
    echo "The first question was not answered; the service's own log above says why." >&2
    exit 1
fi

# The first signal ends the first wait; the second one waits for the drain.
status=0
wait "$service" || status=$?
if kill -0 "$service" 2>/dev/null; then
    status=0
    wait "$service" || status=$?
fi
trap - EXIT
exit "$status"
