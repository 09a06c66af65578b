"""The real service, in front of a small OpenAI-compatible upstream or alone with its embedded model."""

import base64
import json
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = "test-model"
EMBEDDING_MODEL = "text-embedding-3-small"
TEXT = "An opossum plays dead when everything around it goes wrong."


def vector_of(text, dimensions):
    """Components that 32-bit floats hold exactly, so that vectors can be compared with ==."""
    return [(len(text) + place) / 8 for place in range(dimensions)]


class Upstream(ThreadingHTTPServer):
    """Answers chats with TEXT; what the last user message says selects what goes wrong instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        models = [{"id": name, "object": "model", "owned_by": "test"} for name in (MODEL, EMBEDDING_MODEL)]
        self.whole(200, {"object": "list", "data": models})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(body)
        if self.path.endswith("/embeddings"):
            self.whole(200, self.embed(body))
            return
        order = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        if order == "fail":
            self.whole(500, {"error": {"message": "broken", "type": "server_error", "code": None, "param": None}})
        elif order == "limit":
            self.whole(429, {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}})
        elif body.get("tools"):
            self.whole(200, self.answer(body, message=self.tool_call(body), reason="tool_calls"))
        elif body.get("stream"):
            self.stream(body, cut=order == "cut")
        else:
            self.whole(200, self.answer(body))

    def embed(self, body):
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = []
        for index, text in enumerate(inputs):
            vector = vector_of(text, body.get("dimensions", 4))
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}

    def tool_call(self, body):
        name = body["tools"][0]["function"]["name"]
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city":"Paris"}'}}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def answer(self, body, message=None, reason="stop"):
        chat = "messages" in body
        choice = {"index": 0, "finish_reason": reason, "logprobs": None}
        if chat:
            choice["message"] = message or {"role": "assistant", "content": TEXT}
        else:
            choice["text"] = TEXT
        return {
            "id": "up-1", "object": "chat.completion" if chat else "text_completion", "created": 1700000000,
            "model": body["model"], "choices": [choice],
            "usage": {"prompt_tokens": 5, "completion_tokens": 11, "total_tokens": 16},
        }

    def whole(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, body, cut):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        base = {"id": "up-1", "object": "chat.completion.chunk", "created": 1700000000, "model": body["model"]}

        def event(choices, **more):
            self.wfile.write(b"data: " + json.dumps(base | {"choices": choices} | more).encode() + b"\n\n")
            self.wfile.flush()

        event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for word in TEXT.split(" "):
            event([{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}])
            if cut:
                self.close_connection = True
                return
        event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if body.get("stream_options", {}).get("include_usage"):
            event([], usage={"prompt_tokens": 5, "completion_tokens": 11, "total_tokens": 16})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


class Service:
    """The real binary with one upstream behind it, or without one alone with an embedded model."""

    def __init__(self, upstream=None, model=None, env=None):
        self.dir = tempfile.TemporaryDirectory(prefix="opossum-clients-")
        self.port = free_port()
        self.backend = "only" if upstream else "transformers"
        env = (env or {}) | {
            "PATH": os.environ["PATH"], "HOME": self.dir.name, "HOST": "127.0.0.1", "PORT": str(self.port),
            "STATE_DIR": f"{self.dir.name}/state", "TRANSFORMERS_ENABLED": "true" if model else "false",
            "DEFAULT_RETRY_DELAY": "0.02", "ONLY_CIRCUIT_BREAKER_ENABLED": "false",
        }
        if upstream:
            config = Path(self.dir.name) / "config"
            config.mkdir()
            (config / "default.toml").write_text(
                f'services.only.kind = "openai"\nservices.only.base_url = "{upstream.base_url}"\n'
                f'services.only.models = ["{MODEL}", "{EMBEDDING_MODEL}"]\n'
            )
        if model:
            env |= {"TRANSFORMERS_MODEL": str(model), "TRANSFORMERS_EMBEDDING_MODEL": "none"}
        self.log = open(f"{self.dir.name}/log", "w+", encoding="utf-8")
        binary = str(Path(os.environ["OPOSSUM_BIN"]).resolve())
        self.process = subprocess.Popen(
            [binary, "serve"], cwd=self.dir.name, env=env, stdout=self.log, stderr=subprocess.STDOUT
        )
        self.wait_ready()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health?refresh=true") as answer:
                    if json.load(answer)["services"]["model_backends"].get(self.backend) == "available":
                        return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.02)
        self.log.seek(0)
        raise RuntimeError(f"the service is not ready:\n{self.log.read()}")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.dir.cleanup()


def default_model():
    """The default model's file; without it the caller's tests are skipped, or fail where it is required."""
    cache = os.environ.get("OPOSSUM_MODEL_CACHE") or Path.home() / ".cache/opossum/models"
    folders = [os.environ.get("QUANTIZED_MODEL_DIR"), Path(__file__).parents[2] / "models", cache]
    for folder in filter(None, folders):
        path = Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf"
        if path.is_file():
            return path.resolve()
    if os.environ.get("OPOSSUM_REQUIRE_MODEL") == "1":
        raise RuntimeError(f"the model is in none of {folders}")
    raise unittest.SkipTest("the default model is not here; `make test` fetches it")


def with_template(model, template, target):
    """Writes a copy of a model with another chat template.

    A comment fills the template up, so that the header grows by a multiple of the alignment and the tensors stay where
    the file says.
    """
    data = model.read_bytes()
    key = b"tokenizer.chat_template"
    at = data.index(key) + len(key) + 4
    (length,) = struct.unpack_from("<Q", data, at)
    text = template.encode() + b"{#"
    text += b" " * ((length - len(text) - 2) % 32) + b"#}"
    target.write_bytes(data[:at] + struct.pack("<Q", len(text)) + text + data[at + 8 + length:])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
