#!/usr/bin/env bash
# Installs what the tests need and says what it does. Asks nothing; outside the checkout it changes the model
# cache only. `test-setup.sh clients` installs the client libraries only.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${OPOSSUM_MODEL_CACHE:-$HOME/.cache/opossum/models}"

clients() {
    local wanted=tests/clients/requirements.txt stamp=.venv/opossum-requirements.txt
    if cmp -s "$wanted" "$stamp"; then
        return
    fi
    echo "==> Installing the Python client libraries of $wanted into .venv"
    # Debian keeps ensurepip in a package of its own; pip can install into an environment without it.
    python3 -m venv --clear --without-pip .venv
    python3 -m pip --python .venv/bin/python install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$stamp"
}

# model NAME PLACE: a model of the catalogue, and the file or folder that it is kept in.
model() {
    local name="$1" place="$2"
    if [ -e "models/$place" ]; then
        return
    fi
    if [ ! -e "$cache/$place" ]; then
        echo "==> Fetching $name for the tests into the cache ($cache)"
        cargo build --bin opossum
        QUANTIZED_MODEL_DIR="$cache" "${CARGO_TARGET_DIR:-target}/debug/opossum" models pull "$name"
    fi
    echo "==> Linking $place from the cache ($cache) into models/"
    mkdir -p models
    ln -sfn "$(realpath "$cache/$place")" "models/$place"
}

clients
if [ "${1:-all}" != clients ]; then
    model smollm2-135m-instruct SmolLM2-135M-Instruct.Q4_1.gguf
    model all-minilm-l6-v2 all-minilm-l6-v2
fi
