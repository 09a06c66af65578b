"""The embedded encoder beside onnxruntime: the same weights, the same tokens, the same threads, in turn."""

import json
import math
import os
import statistics
import subprocess

import prepare
from prepare import CACHE, ROOT, Missing, say

# Inputs at once, and tokens of each: one short text, and a batch of passages.
CASES = ["1:32", "32:32", "1:128", "32:128"]
PACKAGES = ["onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6"]


def onnxruntime():
    """A Python with onnxruntime in it, in an environment of its own."""
    place = CACHE / "onnx"
    python, stamp = place / "bin/python", place / "packages.txt"
    wanted = "\n".join(PACKAGES)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"installing {' '.join(PACKAGES)}")
    prepare.call("python3", "-m", "venv", "--clear", "--without-pip", place)
    prepare.call("python3", "-m", "pip", "--python", python, "install", "--quiet",
                 "--disable-pip-version-check", *PACKAGES)
    stamp.write_text(wanted)
    return python


def cosine(left, right):
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def measure(options, sides, threads):
    """All lines by side."""
    lines = {}
    for turn in range(options.rounds):
        for who, command in sides.items() if turn % 2 == 0 else reversed(sides.items()):
            say(f"round {turn + 1} of {options.rounds}: encoder, {threads} threads, {who}")
            out = prepare.call(*command, threads, options.seconds, *CASES, env=os.environ)
            lines.setdefault(who, []).append(json.loads(out))
    return lines


def compare(options):
    """Prints the table of texts a second."""
    engine = prepare.example("embed")
    model = prepare.product_model("all-minilm-l6-v2", "all-minilm-l6-v2")
    onnx = ROOT / "scripts/bench/onnx_side.py"
    sides = {"opossum": [engine, model], "onnxruntime": [onnxruntime(), onnx, model]}
    print("### Encoder, all-MiniLM-L6-v2, 32-bit weights\n")
    print("| threads | texts at once, tokens each | engine, texts/s | onnxruntime | ratio |")
    print("|---:|---|---:|---:|---:|")
    for threads in options.threads:
        lines = measure(options, sides, threads)
        same = cosine(lines["opossum"][0]["vector"], lines["onnxruntime"][0]["vector"])
        if same < 0.9999:
            raise Missing(f"the two do not compute the same: cosine {same:.6f}")
        for case in CASES:
            batch, tokens = case.split(":")
            ours, theirs = (
                statistics.median(int(batch) * 1e3 / line[case]["ms"] for line in lines[who]) for who in sides
            )
            print(f"| {threads} | {batch} x {tokens} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")
    side = lines["onnxruntime"][0]["side"]
    print(f"\nMedians; {side}, with its fused operators for BERT. Cosine of one vector of both: {same:.7f}.\n")
