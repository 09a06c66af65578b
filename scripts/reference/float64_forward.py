"""An independent float64 forward pass of a Llama-family GGUF model, in numpy.

It shares no code with the crate it checks: it reads the file itself, uses the neighbouring-pairs form of rotary
embeddings on the weights as the file stores them, repeats keys and values instead of folding query heads, and computes
everything in double precision without a cache. What it writes is the reference of inference/tests/float64.rs.

    python3 -m venv venv && venv/bin/pip install numpy
    venv/bin/python scripts/reference/float64_forward.py models/SmolLM2-135M-Instruct.Q4_1.gguf \
        inference/tests/fixtures/llama_cpp.jsonl inference/tests/fixtures/float64.jsonl

The prompts are taken from the llama.cpp reference, so no tokenizer is needed. Each line of the output has the tokens,
and for the last positions: argmax, log-sum-exp, and the logits of 64 vocabulary entries chosen by a fixed seed.
"""

import hashlib
import json
import struct
import sys

import numpy as np

POSITIONS = 3  # last positions of each prompt that are kept
SAMPLED = 64  # vocabulary entries kept at each position
PROMPTS = [0, 3, 8, 10]  # lines of the llama.cpp reference
CONTINUATION = 24  # tokens of llama.cpp's continuation appended to each prompt


class Gguf:
    """The parts of a GGUF file a forward pass needs."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path):
        self.bytes = open(path, "rb").read()
        self.at = 4
        assert self.bytes[:4] == b"GGUF" and self.number("I") == 3
        tensor_count, entry_count = self.number("Q"), self.number("Q")
        self.metadata = {}
        for _ in range(entry_count):
            key = self.text()
            self.metadata[key] = self.value(self.number("I"))
        self.tensors = {}
        for _ in range(tensor_count):
            name = self.text()
            dims = [self.number("Q") for _ in range(self.number("I"))]
            self.tensors[name] = (dims, self.number("I"), self.number("Q"))
        self.data = (self.at + 31) // 32 * 32

    def number(self, code):
        value = struct.unpack_from("<" + code, self.bytes, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.bytes[self.at - length : self.at].decode()

    def value(self, code):
        if code == 8:
            return self.text()
        if code == 9:
            element, count = self.number("I"), self.number("Q")
            return [self.value(element) for _ in range(count)]
        return self.number(self.SCALARS[code])

    def tensor(self, name):
        """A tensor in float64, outermost dimension first."""
        dims, kind, offset = self.tensors[name]
        count = int(np.prod(dims))
        start = self.data + offset
        if kind == 0:
            flat = np.frombuffer(self.bytes, "<f4", count, start).astype(np.float64)
        elif kind == 3:  # Q4_1: f16 scale, f16 minimum, 16 bytes of nibbles
            block = np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)])
            raw = np.frombuffer(self.bytes, block, count // 32, start)
            quants = np.concatenate([raw["q"] & 15, raw["q"] >> 4], axis=1).astype(np.float64)
            flat = quants * raw["d"].astype(np.float64)[:, None] + raw["m"].astype(np.float64)[:, None]
        elif kind == 8:  # Q8_0: f16 scale, 32 signed bytes
            block = np.dtype([("d", "<f2"), ("q", "i1", 32)])
            raw = np.frombuffer(self.bytes, block, count // 32, start)
            flat = raw["q"].astype(np.float64) * raw["d"].astype(np.float64)[:, None]
        else:
            raise SystemExit(f"tensor {name} has type {kind}, which this script does not read")
        return flat.reshape(dims[::-1])


def rms_norm(x, scale, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * scale


def rotate_pairs(x, base):
    """Rotates neighbouring dimensions (2 i, 2 i + 1) of [tokens, heads, dim] by position * base^(-2 i / dim)."""
    tokens, _, dim = x.shape
    angles = np.arange(tokens)[:, None] * base ** (-np.arange(0, dim, 2) / dim)[None, :]
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = turned.real, turned.imag
    return out


def forward(model, tokens):
    """Logits [tokens, vocabulary]."""
    meta = lambda key: model.metadata["llama." + key]
    heads, kv_heads = meta("attention.head_count"), meta("attention.head_count_kv")
    epsilon, base = meta("attention.layer_norm_rms_epsilon"), meta("rope.freq_base")
    embedding = model.tensor("token_embd.weight")
    x = embedding[tokens]
    count, width = x.shape
    dim = width // heads
    hidden = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(meta("block_count")):
        weight = lambda name: model.tensor(f"blk.{layer}.{name}.weight")
        h = rms_norm(x, weight("attn_norm"), epsilon)
        q = rotate_pairs((h @ weight("attn_q").T).reshape(count, heads, dim), base)
        k = rotate_pairs((h @ weight("attn_k").T).reshape(count, kv_heads, dim), base)
        v = (h @ weight("attn_v").T).reshape(count, kv_heads, dim)
        k, v = (np.repeat(t, heads // kv_heads, axis=1) for t in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim) + hidden
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(count, width) @ weight("attn_output").T
        h = rms_norm(x, weight("ffn_norm"), epsilon)
        gate = h @ weight("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ weight("ffn_up").T)) @ weight("ffn_down").T
    x = rms_norm(x, model.tensor("output_norm.weight"), epsilon)
    head = model.tensor("output.weight") if "output.weight" in model.tensors else embedding
    return x @ head.T


def main():
    model_path, prompts_path, out_path = sys.argv[1:]
    model = Gguf(model_path)
    lines = [json.loads(line) for line in open(prompts_path)][1:]
    rng = np.random.default_rng(2024)
    digest = hashlib.sha256(model.bytes).hexdigest()
    out = [{"about": {"program": "scripts/reference/float64_forward.py", "numpy": np.__version__, "sha256": digest}}]
    for index in PROMPTS:
        tokens = lines[index]["prompt"] + [step[0] for step in lines[index]["steps"][:CONTINUATION]]
        logits = forward(model, tokens)
        positions = []
        for position in range(len(tokens) - POSITIONS, len(tokens)):
            row = logits[position]
            ids = np.sort(rng.choice(len(row), SAMPLED, replace=False))
            highest = row.max()
            positions.append(
                {
                    "position": position,
                    "argmax": int(row.argmax()),
                    "log_sum_exp": round(float(highest + np.log(np.exp(row - highest).sum())), 6),
                    "ids": ids.tolist(),
                    "logits": [round(float(row[i]), 6) for i in ids],
                }
            )
        out.append({"tokens": tokens, "positions": positions})
        print(f"{len(out) - 1}/{len(PROMPTS)}", file=sys.stderr)
    with open(out_path, "w") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in out)


main()
