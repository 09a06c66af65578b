#!/usr/bin/env python3
"""Whether the service's memory grows: thousands of mixed requests to the embedded models over HTTP, and the resident
memory after the first few hundred beside that after the last. Exits with 1 when it grew by more than it may.

    scripts/bench/soak.py BINARY --requests 5000 --early 500 --callers 8

The mix: short answers to prompts of many lengths, streams, streams that the caller leaves, embeddings, and answers that
follow a schema, each schema a new one. Caches are small, so that they are full before the first look.
"""

import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from prepare import ROOT, product_model

WORDS = "the sea town river old night bread letter small window garden stone summer road voice".split()
# Shares of 100 requests.
MIX = [("answer", 50), ("stream", 20), ("left", 16), ("embed", 10), ("schema", 4)]
READY_S = 120
SETTLE_S = 2


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Service:
    """The service with nothing but its embedded models, in a folder of its own."""

    def __init__(self, binary, folder):
        self.port = free_port()
        models = Path(folder) / "models"
        models.mkdir()
        for name, file in [
            ("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"),
            ("all-minilm-l6-v2", "all-minilm-l6-v2"),
        ]:
            (models / file).symlink_to(product_model(name, file))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PORT": str(self.port),
            "STATE_DIR": f"{folder}/state",
            "QUANTIZED_MODEL_DIR": str(models),
            "TRANSFORMERS_KV_CACHE": "64MiB",
            "CACHE_MAX_BYTES": "1MiB",
            "LOG_LEVEL": "warn",
            "DRAIN_DELAY": "0",
        }
        self.process = subprocess.Popen([binary, "serve"], env=environment, cwd=folder)
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"the service has exited with {self.process.returncode}")
            try:
                if ask(self.port, "GET", "/health/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit(f"the service is not ready after {READY_S} s")

    def resident_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ask(port, method, path, body=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        payload = None if body is None else json.dumps(body)
        conn.request(method, path, payload, {"content-type": "application/json"})
        answer = conn.getresponse()
        return answer.status, answer.read()
    finally:
        conn.close()


def leave(port, body):
    """Reads the first bytes of a stream and hangs up."""
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        conn.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = conn.getresponse()
        answer.read(64)
        return answer.status
    finally:
        conn.close()


def schema(index):
    properties = {f"name{index}": {"type": "string", "maxLength": 8}, "count": {"type": "integer"}}
    wanted = {"type": "object", "properties": properties, "required": list(properties),
              "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": wanted}}


def request(port, index):
    """Sends one request; answers its kind and status. The same index always asks the same."""
    dice = random.Random(index)
    kind = dice.choices([name for name, _ in MIX], [share for _, share in MIX])[0]
    # A few long prompts, many short ones; the number makes each a new one.
    length = int(2 + dice.random() ** 4 * 250)
    prompt = f"{index} " + " ".join(dice.choices(WORDS, k=length))
    if kind == "embed":
        texts = [f"{part} {prompt}"[:400] for part in range(dice.randint(1, 4))]
        return kind, ask(port, "POST", "/v1/embeddings", {"model": "all-minilm-l6-v2", "input": texts})[0]
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": dice.randint(1, 8),
        "stream": kind in ("stream", "left"),
    }
    if kind == "left":
        return kind, leave(port, {**body, "max_tokens": 64})
    if kind == "schema":
        body |= {"max_tokens": 32, "response_format": schema(index)}
    return kind, ask(port, "POST", "/v1/chat/completions", body)[0]


def send(port, first, last, callers):
    """Requests `first` to `last` by so many callers at once; how many of each kind got which status."""
    counts, lock, left = {}, threading.Lock(), iter(range(first, last))

    def caller():
        while True:
            with lock:
                index = next(left, None)
            if index is None:
                return
            try:
                outcome = request(port, index)
            except OSError as error:
                outcome = ("failed", type(error).__name__)
            with lock:
                counts[outcome] = counts.get(outcome, 0) + 1

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", default=str(ROOT / "target/release/opossum"))
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--early", type=int, default=500, help="requests before the first look at the memory")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--most", type=float, default=5.0, help="growth allowed, in per cent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opossum-soak-") as folder:
        service = Service(str(Path(options.binary).resolve()), folder)
        try:
            counts, seen, begin = {}, {}, time.monotonic()
            print(f"{service.resident_mib():.1f} MiB resident before the first request", flush=True)
            looks = [*range(options.early, options.requests, options.early), options.requests]
            for first, last in zip([0, *looks], looks):
                for outcome, count in send(service.port, first, last, options.callers).items():
                    counts[outcome] = counts.get(outcome, 0) + count
                time.sleep(SETTLE_S)
                seen[last] = service.resident_mib()
                print(f"{seen[last]:.1f} MiB after {last} requests, {time.monotonic() - begin:.0f} s", flush=True)
        finally:
            service.stop()
    for (kind, status), count in sorted(counts.items(), key=str):
        print(f"{kind}: {count} x {status}")
    growth = (seen[options.requests] / seen[options.early] - 1) * 100
    print(f"growth from request {options.early} to {options.requests}: {growth:+.1f} % (at most {options.most:g} %)")
    faults = sum(count for (_, status), count in counts.items() if status != 200)
    if faults:
        print(f"{faults} requests were not answered with 200", file=sys.stderr)
    sys.exit(1 if growth > options.most or faults else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
