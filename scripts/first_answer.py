#!/usr/bin/env python3
"""Waits until the service at URL is ready, asks one streamed question, and prints how long it took.

Usage: first_answer.py URL PID, where PID is the service's process.
"""

import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

READY_LIMIT_S = 120
QUESTION = "What is an opossum? Answer in one sentence."


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child that nobody has waited for is still there as a zombie.
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return True


def connection(url):
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=READY_LIMIT_S)


def wait_ready(url, pid):
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline:
        if not alive(pid):
            sys.exit("The service has exited.")
        try:
            conn = connection(url)
            conn.request("GET", "/health/ready")
            if conn.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"The service is not ready after {READY_LIMIT_S} s.")


def ask(url):
    """Streams one answer; returns its text, its backend and model, and the seconds to first and last token."""
    body = {
        "model": "auto",
        "stream": True,
        "max_tokens": 48,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    conn = connection(url)
    started = time.monotonic()
    conn.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = conn.getresponse()
    if answer.status != 200:
        sys.exit(f"status {answer.status}: {answer.read().decode(errors='replace')}")
    text, first = [], None
    for line in answer:
        line = line.decode().strip()
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            sys.exit(f"the answer broke off: {event['error']}")
        for choice in event.get("choices", []):
            piece = choice.get("delta", {}).get("content")
            if piece:
                first = first or time.monotonic() - started
                text.append(piece)
    if first is None:
        sys.exit("the answer is empty")
    who = f"{answer.getheader('x-opossum-backend')}/{answer.getheader('x-opossum-model')}"
    return "".join(text).strip(), who, first, time.monotonic() - started


def main():
    url, pid = sys.argv[1], int(sys.argv[2])
    wait_ready(url, pid)
    print(f"\n==> Asking: {QUESTION}", flush=True)
    text, who, first, total = ask(url)
    print(text)
    print(f"\n==> Time to first answer: {first:.2f} s to the first token, {total:.2f} s to the last ({who})")
    print(f"""
Page:  {url}/
Try:   curl {url}/v1/chat/completions -H 'content-type: application/json' \\
         -d '{{"model":"auto","messages":[{{"role":"user","content":"Hello!"}}]}}'""", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
