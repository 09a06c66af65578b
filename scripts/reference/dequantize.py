"""Writes random blocks of every supported GGUF storage type with the numbers the `gguf` package reads from them.

    python3 -m venv venv && venv/bin/pip install gguf
    venv/bin/python scripts/reference/dequantize.py inference/src/gguf/fixtures/blocks.jsonl

The unit tests of inference/src/gguf read the file. Scales are random but finite, all other bytes are random.
"""

import json
import sys
from importlib.metadata import version

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Kind
from gguf.quants import dequantize

BLOCKS = 2
# Where the 16-bit scales of a block lie, in bytes.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208]}

rng = np.random.default_rng(7)
lines = [{"about": {"program": "scripts/reference/dequantize.py", "gguf": version("gguf")}}]
for name, offsets in SCALES.items():
    kind = Kind[name]
    _, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (BLOCKS, block_bytes), dtype=np.uint8)
    for offset in offsets:
        scales = rng.uniform(-0.1, 0.1, BLOCKS).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    numbers = dequantize(blocks, kind).astype(np.float64).flatten()
    lines.append({"kind": name, "bytes": blocks.tobytes().hex(), "numbers": numbers.tolist()})
with open(sys.argv[1], "w") as file:
    file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
