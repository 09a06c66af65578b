#!/usr/bin/env bash
# Installs what the tests need and says what it does. Asks nothing; outside the checkout it changes the model
# cache and, on Debian and Ubuntu, installs the servers that the tests start and that are missing.
# `test-setup.sh clients` installs only the client libraries and the broker that their suites start.
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

# node_packages FOLDER WHAT: what the folder's package.json names, beside it.
node_packages() {
    local folder="$1" what="$2"
    local wanted="$folder/package.json" stamp="$folder/node_modules/opossum-package.json"
    if cmp -s "$wanted" "$stamp"; then
        return
    fi
    server nodejs node
    server npm npm
    echo "==> Installing $what of $wanted beside it"
    npm install --prefix "$folder" --silent --no-package-lock --no-audit --no-fund
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

# server PACKAGE PROGRAM: the package of a server that the tests start themselves, unless its program is there.
server() {
    local package="$1" program="$2" root=()
    if compgen -G "$program" >/dev/null || command -v "$(basename "$program")" >/dev/null; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        echo "==> $package is missing: the tests that need it will fail; please install it"
        return
    fi
    [ "$(id -u)" -eq 0 ] || root=(sudo -n)
    echo "==> Installing $package for the tests; it is not started as a service"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -qq -y --no-install-recommends "$package" >/dev/null
}

clients
server rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
if [ "${1:-all}" != clients ]; then
    server postgresql '/usr/lib/postgresql/*/bin/postgres'
    node_packages docs/examples "the Node client library"
    node_packages tests/asyncapi "the AsyncAPI parser"
    node_packages tests/kubernetes "the schemas of Kubernetes and KEDA"
    model smollm2-135m-instruct SmolLM2-135M-Instruct.Q4_1.gguf
    model all-minilm-l6-v2 all-minilm-l6-v2
fi
