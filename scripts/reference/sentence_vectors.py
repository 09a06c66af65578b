"""Writes the vectors that inference/tests/reference/encoder.rs compares against.

    pip install sentence-transformers==6.2.0
    python scripts/reference/sentence_vectors.py FOLDER > inference/tests/fixtures/sentence_vectors.jsonl

FOLDER holds all-MiniLM-L6-v2 as published, in Hugging Face's layout. The first line says what made the file; each other
line has a text, its token ids and its vector, rounded to six decimals.
"""

import hashlib
import json
import pathlib
import sys

import sentence_transformers
import torch

TEXTS = [
    "The cat sat on the mat.",
    "A feline rested on a rug.",
    "Quarterly revenue grew by 12.5% to $3,400,000.",
    "a",
    " leading and trailing ",
    "fn main() { println!(\"{}\", 1 + 2); }",
    "naïve café – “quotes” … №5",
    "日本語のテキストと한국어",
    "Привет, мир! Γειά σου Κόσμε",
    "😀👩‍👩‍👧‍👦🇫🇷",
    "a\u0301e\u0308 combining and \u200b zero width \u00a0 spaces",
    "ALLCAPS mixedCase snake_case kebab-case",
    "https://example.org/a?b=c&d=%20#frag",
    "[CLS] is a mark [SEP] and so is [MASK]",
    "line one\nline two\r\n\ttab",
    "مرحبا بالعالم",
    "supercalifragilisticexpialidocious" * 4,
    "1234567890 3.14159 2,718",
    "How do I reset my password?",
    "word " * 200,
    "The quick brown fox jumps over the lazy dog. " * 40,
]


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    program = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}"
    about = {"program": program, "sha256": digest, "limit": model.max_seq_length}
    print(json.dumps({"about": about}))
    for text in TEXTS:
        ids = model.tokenize([text])["input_ids"][0].tolist()
        vector = model.encode(text, normalize_embeddings=True).tolist()
        line = {"text": text, "ids": ids, "vector": [round(number, 6) for number in vector]}
        print(json.dumps(line, ensure_ascii=False, separators=(",", ":")))


main()
