#!/usr/bin/env bash
# Installs what the tests need and says what it does. Asks nothing; outside the checkout it changes the model
# cache only. `test-setup.sh clients` installs the client libraries only.
set -euo pipefail
cd "$(dirname "$0")/.."

model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model=smollm2-135m-instruct
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

model() {
    if [ -e "models/$model_file" ]; then
        return
    fi
    if [ ! -f "$cache/$model_file" ]; then
        echo "==> Fetching $model for the tests into the cache ($cache)"
        cargo build --bin opossum
        QUANTIZED_MODEL_DIR="$cache" "${CARGO_TARGET_DIR:-target}/debug/opossum" models pull "$model"
    fi
    echo "==> Linking $model_file from the cache ($cache) into models/"
    mkdir -p models
    ln -sfn "$(realpath "$cache/$model_file")" "models/$model_file"
}

clients
if [ "${1:-all}" != clients ]; then
    model
fi
