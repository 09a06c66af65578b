"""What the benchmark compares: both programs built, llama.cpp and the models fetched. Everything it makes lies in one
cache folder outside the checkout, and nothing is made twice.

Needs cargo, a C compiler, git, and npm: llama.cpp's libraries and headers come from the packages of node-llama-cpp,
which carry a prebuilt library for each processor and the sources as a git bundle.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CACHE = Path(os.environ.get("OPOSSUM_BENCH_CACHE", Path.home() / ".cache/opossum/bench"))
MODELS = Path(os.environ.get("OPOSSUM_MODEL_CACHE", Path.home() / ".cache/opossum/models"))

NODE_LLAMA_CPP = "3.22.1"
SMOL = "SmolLM2-135M-Instruct"
GEMMA = "gemma-3-270m-q4_k_m"
# Each file of this model is made from the first, which is the one that the product fetches.
SMOL_TYPES = ["Q4_1", "Q8_0", "Q4_0", "Q4_K_M"]


class Missing(Exception):
    """Something that cannot be had here; says what and what would help."""


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def call(*command, **options):
    """Runs a command whose output is of interest only when it fails."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, **options)
    except FileNotFoundError as error:
        raise Missing(f"{command[0]} is not installed") from error
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise Missing(f"`{' '.join(command)}` failed:\n{tail}")
    return done.stdout


def example(name):
    """A program of the engine's own crate, with the release profile of the product."""
    say(f"building the engine's side ({name})")
    call("cargo", "build", "--release", "-p", "opossum-inference", "--example", name, cwd=ROOT)
    return TARGET / "release/examples" / name


def unfinished(place):
    """Where a file or folder is made that must not be taken for whole before it is; what an earlier try left is gone."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    return part


def npm_package(name, place):
    if place.exists():
        return place
    say(f"fetching {name} {NODE_LLAMA_CPP}")
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / call("npm", "pack", "--silent", f"{name}@{NODE_LLAMA_CPP}", cwd=CACHE).split()[-1]
    part = unfinished(place)
    with tarfile.open(archive) as tar:
        tar.extractall(part, filter="data")
    archive.unlink()
    part.rename(place)
    return place


def llama_cpp():
    """llama.cpp's side as a program, and the folder of its libraries."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Missing("llama.cpp's side is set up for Linux on x86-64 only")
    package = npm_package("@node-llama-cpp/linux-x64", CACHE / f"libraries-{NODE_LLAMA_CPP}")
    libraries = next(package.rglob("libllama.*")).parent
    sources = CACHE / f"sources-{NODE_LLAMA_CPP}"
    if not sources.exists():
        package = npm_package("node-llama-cpp", CACHE / f"node-{NODE_LLAMA_CPP}")
        part = unfinished(sources)
        call("git", "clone", "--quiet", next(package.rglob("gitRelease.bundle")), part)
        part.rename(sources)
    program, source = CACHE / "llama_side", ROOT / "scripts/bench/llama_side.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        say("building llama.cpp's side")
        names = [next(libraries.glob(f"lib{name}.*")) for name in ("llama", "ggml")]
        names.append(libraries / "libggml-base.so")
        call(
            os.environ.get("CC", "cc"), "-O2", source, "-o", program, f"-Wl,-rpath,{libraries}",
            f"-I{sources}/include", f"-I{sources}/ggml/include", *names, f"-Wl,-rpath-link,{libraries}",
        )
    return program, libraries


def product_model(name, file):
    """A model of the product's catalogue, fetched by the product where it is not there."""
    for place in (ROOT / "models" / file, MODELS / file):
        if place.exists():
            return place.resolve()
    say(f"fetching {name} with the product (its first build takes some minutes)")
    environment = {**os.environ, "QUANTIZED_MODEL_DIR": str(MODELS)}
    call("cargo", "run", "--quiet", "--bin", "opossum", "--", "models", "pull", name, cwd=ROOT, env=environment)
    return MODELS / file


def language_models(wanted, side):
    """The wanted files by name; llama.cpp makes those of other types than the product's."""
    found = {}
    for name in wanted:
        if name == "gemma":
            found[GEMMA] = product_model("gemma-3-270m", f"{GEMMA}.gguf")
            continue
        base = product_model("smollm2-135m-instruct", f"{SMOL}.{SMOL_TYPES[0]}.gguf")
        made = CACHE / f"{SMOL}.{name}.gguf"
        if name == SMOL_TYPES[0]:
            made = base
        elif not made.exists():
            say(f"quantizing {made.name} from {base.name} with llama.cpp")
            program, libraries = side
            part = unfinished(made)
            call(program, libraries, "quantize", base, part, name.lower())
            part.rename(made)
        found[f"{SMOL} {name}"] = made
    return found
