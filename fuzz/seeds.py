#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into seeds/gguf, seeds/safetensors and seeds/template.

Small files of every shape the reader knows, and the ways a file lies that the reader must see through. The seeds are
also a test (`inference/tests/hostile_files.rs`), so a file that once broke the reader belongs here.
"""

import json
import struct
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
# Name: type code, numbers in a block, bytes of a block.
TYPES = {
    "f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24),
    "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176), "q6_k": (14, 256, 210), "bf16": (30, 1, 2),
}
CHATML = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
TEMPLATES = {
    "chatml": CHATML,
    "trim": "{%- for m in messages -%}{{ m.content | trim | upper }}{%- endfor -%}{{ bos_token }}",
    "reject": "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}",
    "nested-ranges": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "blow-up": "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
    "repeat": "{{ ('x' * 1000000) * 1000000 }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "missing": "{{ nothing.at.all[7]('x') | nofilter }}",
    "filters": "{{ messages | map(attribute='content') | join('|') | replace('a', 'b') | tojson }}{{ messages | length }}",
    "python": "{{ messages[-1].content.split(' ')[0].strip() }}{{ 'a'.center(99999999) }}",
}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, content):
    if kind == STRING:
        return string(content)
    if kind == ARRAY:
        element, items = content
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, item) for item in items)
    return struct.pack("<" + PACK[kind], content)


def entries(pairs):
    return [string(key) + struct.pack("<I", kind) + value(kind, content) for key, kind, content in pairs]


def tensor(name, dims, code, offset):
    return string(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", code, offset)


def file(pairs=(), tensors=(), data=b"", version=3, alignment=32, counts=None):
    tensor_count, entry_count = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count)
    head += b"".join(entries(pairs)) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def every_type():
    tensors, data = [], b""
    for name, (code, length, size) in TYPES.items():
        tensors.append(tensor(name, [max(length, 8), 2], code, len(data)))
        data += bytes((7 * i) % 251 for i in range(max(length, 8) * 2 // length * size))
        data += bytes(-len(data) % 32)
    return file(tensors=tensors, data=data)


def every_value():
    pairs = [(f"scalar.{kind}", kind, 1) for kind in PACK] + [("text", STRING, "naïve 言葉")]
    pairs += [(f"array.{kind}", ARRAY, (kind, [1, 0, 1])) for kind in PACK]
    pairs += [("texts", ARRAY, (STRING, ["a", "", "é"])), ("general.alignment", U32, 64)]
    return file(pairs, alignment=64)


def byte_level(pre):
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = control + [chr(c) for c in range(0x21, 0x7F)] + ["Ġ", "Ċ", "th", "the", "Ġthe"]
    return [
        ("general.architecture", STRING, "llama"),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, pre),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, [3] * 3 + [1] * (len(tokens) - 3))),
        ("tokenizer.ggml.merges", ARRAY, (STRING, ["t h", "th e", "Ġ the"])),
        ("tokenizer.ggml.eos_token_id", U32, 2),
        ("tokenizer.chat_template", STRING, CHATML),
    ]


def sentence_pieces():
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁", "t", "h", "e", "th", "the", "▁the"]
    kinds = [3, 3, 3, 2] + [6] * 256 + [1] * 7
    return [
        ("general.architecture", STRING, "gemma3"),
        ("tokenizer.ggml.model", STRING, "llama"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.scores", ARRAY, (F32, [-float(i) for i in range(len(tokens))])),
        ("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        ("tokenizer.ggml.bos_token_id", U32, 2),
        ("tokenizer.ggml.eos_token_id", U32, 1),
        ("tokenizer.ggml.add_space_prefix", BOOL, False),
    ]


def lies():
    whole = every_type()
    key = string("k")
    yield "truncated-header", whole[:90]
    yield "truncated-data", whole[:-200]
    yield "count-2e63", file(counts=(2**63, 0))
    yield "entries-2e63", file(counts=(0, 2**63))
    yield "string-2e63", b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(40)
    yield "array-2e63", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IIQ", ARRAY, U8, 2**63) + bytes(40)
    yield "extent-2e42", file(tensors=[tensor("t", [2**42 + 1], 0, 0)], data=bytes(64))
    yield "product-wraps", file(tensors=[tensor("t", [2**32, 2**32], 0, 0)], data=bytes(64))
    yield "offset-wraps", file(tensors=[tensor("t", [8], 0, 2**64 - 32)], data=bytes(64))
    yield "overlap", file(tensors=[tensor("t", [8], 0, 0), tensor("u", [16], 0, 0)], data=bytes(64))
    yield "alignment-0", file([("general.alignment", U32, 0)])
    yield "alignment-2e31", file([("general.alignment", U32, 2**31)])
    yield "nested-array", file()[:8] + struct.pack("<QQ", 0, 1) + key + struct.pack("<IIQ", ARRAY, ARRAY, 1) + bytes(40)


def safetensors(table, data=b"", length=None):
    text = (table if isinstance(table, str) else json.dumps(table)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def sound_tables():
    dtypes = {"F32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U32": 4, "I64": 8, "F64": 8, "F8_E4M3": 1}
    table, end = {"__metadata__": {"format": "pt"}}, 0
    for name, size in dtypes.items():
        table[name] = entry(name, [2, 3], end, end + 6 * size)
        end += 6 * size
    yield "every-type", safetensors(table, bytes(end))
    yield "scalar", safetensors({"a": entry("F32", [], 0, 4)}, bytes(4))
    yield "nothing-in-it", safetensors({"a": entry("F32", [0, 7], 0, 0)})
    yield "any-order", safetensors({"b": entry("F16", [2], 4, 8), "a": entry("F32", [1], 0, 4)}, bytes(8))


def lying_tables():
    whole = safetensors({"a": entry("F32", [2], 0, 8)}, bytes(8))
    yield "truncated-length", whole[:5]
    yield "truncated-table", whole[:20]
    yield "truncated-data", whole[:-3]
    yield "length-2e63", safetensors({}, length=2**63)
    yield "length-all-ones", safetensors({}, length=2**64 - 1)
    yield "no-json", safetensors("{]", bytes(4))
    yield "deep", safetensors('{"__metadata__":' + "[" * 4000)
    yield "size", safetensors({"a": entry("F32", [3], 0, 8)}, bytes(8))
    yield "extents-wrap", safetensors({"a": entry("U8", [2**32, 2**32], 0, 0)})
    yield "extents-2e64", safetensors({"a": entry("U8", [2**64 - 1, 2**64 - 1], 0, 4)}, bytes(4))
    yield "offsets-wrap", safetensors({"a": entry("U8", [4], 2**64 - 4, 0)}, bytes(4))
    yield "backwards", safetensors({"a": entry("U8", [4], 4, 0)}, bytes(4))
    yield "overlap", safetensors({"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 2, 6)}, bytes(6))
    yield "hole", safetensors({"a": entry("U8", [4], 0, 4), "b": entry("U8", [2], 6, 8)}, bytes(8))
    yield "tail", safetensors({"a": entry("U8", [4], 0, 4)}, bytes(9))
    yield "unknown-type", safetensors({"a": entry("F4", [4], 0, 4)}, bytes(4))
    yield "negative", safetensors('{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}', bytes(4))
    yield "twice", safetensors('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
                               '"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}', bytes(4))


def main():
    gguf = {
        "every-type": every_type(),
        "every-value": every_value(),
        "sentence-pieces": file(sentence_pieces()),
        **{f"byte-level-{pre}": file(byte_level(pre)) for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2")},
        **{f"lie-{name}": content for name, content in lies()},
    }
    tables = {**dict(sound_tables()), **{f"lie-{name}": content for name, content in lying_tables()}}
    templates = {name: text.encode() for name, text in TEMPLATES.items()}
    for folder, seeds in (("gguf", gguf), ("safetensors", tables), ("template", templates)):
        (SEEDS / folder).mkdir(parents=True, exist_ok=True)
        for name, content in seeds.items():
            (SEEDS / folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
