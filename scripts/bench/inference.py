#!/usr/bin/env python3
"""The embedded engine beside llama.cpp: same files, same threads, the two run in turn, each measurement a process of its
own. Then what streams cost each other, and the encoder beside onnxruntime. Prints Markdown.

    scripts/bench/inference.py --rounds 5 --seconds 2 --threads 1 2 --models Q4_1 Q8_0 Q4_0 Q4_K_M gemma
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import encoder
import prepare
from prepare import Missing, say

CASES = ["prefill:128", "prefill:512", "decode:1", "decode:4"]
# Tokens of one operation of a case, by which its time becomes a rate.
TOKENS = {"prefill:128": 128, "prefill:512": 512, "decode:1": 1, "decode:4": 4}
NAMES = {
    "decode:1": "decode, 1 sequence, tokens/s",
    "decode:4": "decode, 4 sequences, tokens/s",
    "prefill:128": "prefill of 128, tokens/s",
    "prefill:512": "prefill of 512, tokens/s",
    "rss_mb": "memory, MiB",
    "load_ms": "load, ms",
}
# At least so many times llama.cpp's rate; memory at most.
GOALS = {"decode": 1.2, "prefill": 1.2, "rss_mb": 1.0}
GOALS_Q4_1 = {"decode": 1.8, "prefill": 3.0, "rss_mb": 1.0}


def measure(*command):
    """One process, one line of JSON."""
    command = [str(part) for part in command]
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=600)
    if done.returncode != 0:
        raise Missing(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def run(options, engine, side, models):
    """All lines by (model, threads, side)."""
    lines = {}
    for turn in range(options.rounds):
        for name, file in models.items():
            for threads in options.threads:
                programs = [("opossum", [engine]), ("llama.cpp", [side[0], side[1], "bench"])]
                for who, program in programs if turn % 2 == 0 else reversed(programs):
                    say(f"round {turn + 1} of {options.rounds}: {name}, {threads} threads, {who}")
                    line = measure(*program, file, threads, options.seconds, *CASES)
                    lines.setdefault((name, threads, who), []).append(line)
    return lines


def figure(lines, what):
    """The median over the rounds of a rate or of a plain figure."""
    if what in TOKENS:
        return statistics.median(TOKENS[what] * 1e3 / line[what]["ms"] for line in lines)
    return statistics.median(line[what] for line in lines)


def goal(name, what):
    goals = GOALS_Q4_1 if name.endswith("Q4_1") else GOALS
    return goals.get(what.split(":")[0])


def cells(lines, name, threads, what):
    """Both figures and their ratio, marked where it misses the goal."""
    engine, other = (figure(lines[name, threads, who], what) for who in ("opossum", "llama.cpp"))
    ratio, wanted = engine / other, goal(name, what)
    met = wanted is None or (ratio <= wanted if what == "rss_mb" else ratio >= wanted)
    shown = f"{ratio:.2f}" if met else f"**{ratio:.2f}**"
    return f"{rounded(engine)} | {rounded(other)} | {shown}"


def rounded(number):
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def table(options, lines, models, version):
    threads = options.threads
    head = "".join(f" engine, {n} thr. | {version} | ratio |" for n in threads)
    print(f"| file | |{head} goal |")
    print(f"|---|---|{'---:|' * (3 * len(threads) + 1)}")
    for name in models:
        for what, label in NAMES.items():
            wanted = goal(name, what)
            sign = "" if wanted is None else f"≤ {wanted}" if what == "rss_mb" else f"≥ {wanted}"
            row = " | ".join(cells(lines, name, n, what) for n in threads)
            print(f"| {name} | {label} | {row} | {sign} |")
    print(
        "\nMedians; bold misses its goal. Both have a cache of 4,096 tokens, which llama.cpp clears at the start and the"
        " engine touches as it fills; loading includes it.\n"
    )


def roofline(options, engine, lines, models):
    """What a decode step could at best be: its weights read once, at the measured speed of memory."""
    print("| file | read by a step, MiB | threads | memory, GiB/s | at best, tokens/s | reached |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, file in models.items():
        for threads in options.threads:
            decode = lines[name, threads, "opossum"]
            mib = decode[0]["step_mb"]
            line = measure(engine, file, threads, 1, f"read:{round(mib)}")
            speed = round(mib) / line[f"read:{round(mib)}"]["ms"] * 1e3
            best = speed / mib
            reached = figure(decode, "decode:1") / best
            print(f"| {name} | {mib:.0f} | {threads} | {speed / 1024:.1f} | {best:.0f} | {reached:.0%} |")
    print(
        "\nOne sequence. The speed is that of adding up a buffer as large as the weights, so a cache that holds them"
        " counts as memory.\n"
    )


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side and setting")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds a case")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--models", nargs="+", default=[*prepare.SMOL_TYPES, "gemma"],
                        choices=[*prepare.SMOL_TYPES, "gemma"])
    parser.add_argument("--parts", nargs="+", default=["table", "streams", "encoder"],
                        choices=["table", "streams", "encoder"])
    parser.add_argument("--lines", metavar="FILE", help="add every measured line to this file, as JSON")
    return parser.parse_args()


def keep(path, lines):
    with open(path, "a", encoding="utf-8") as file:
        for (name, threads, who), measured in lines.items():
            for line in measured:
                file.write(json.dumps({"file": name, "threads": threads, "who": who, **line}) + "\n")


def language(options):
    side = prepare.llama_cpp()
    engine = prepare.example("bench")
    models = prepare.language_models(options.models, side)
    lines = run(options, engine, side, models)
    if options.lines:
        keep(options.lines, lines)
    version = next(line[0]["side"] for (_, _, who), line in lines.items() if who == "llama.cpp")
    print(f"\n### Language models\n\n{options.rounds} rounds, {options.seconds:g} s a case, load average"
          f" {os.getloadavg()[0]:.1f} at the end.\n")
    table(options, lines, models, version)
    roofline(options, engine, lines, models)


def streams(options):
    program = prepare.example("streams")
    # The product's own file: nothing is to be made from it, so llama.cpp is not needed.
    (model,) = prepare.language_models([prepare.SMOL_TYPES[0]], None).values()
    say("streams")
    print(f"### Streams, {max(options.threads)} threads\n")
    print(prepare.call(program, model, max(options.threads)))


def main():
    options = arguments()
    parts = {"table": language, "streams": streams, "encoder": encoder.compare}
    left_out = 0
    for part in options.parts:
        try:
            parts[part](options)
        except Missing as error:
            left_out += 1
            print(f"{part}: left out: {error}", file=sys.stderr)
    sys.exit(1 if left_out else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
