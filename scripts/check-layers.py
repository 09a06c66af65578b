#!/usr/bin/env python3
"""Fails on a dependency that runs the wrong way through the workspace.

Dependencies run one way: core <- backends <- actors <- root; kernels <- inference <- backends;
core <- ledger <- root; core <- jobs <- root. Only actors and the root name actix, only backends an HTTP
client, only inference burn, only ledger a database, only jobs (and the test kit) an AMQP client. Reads `cargo metadata`.
"""

import json
import re
import subprocess
import sys

ROOT = "opossum"
KIT = "opossum-testkit"
# Which members each member may depend on. The test kit is for dev-dependencies of anyone.
ARROWS = {
    "opossum-core": set(),
    "opossum-kernels": set(),
    "opossum-inference": {"opossum-kernels"},
    "opossum-ledger": {"opossum-core"},
    "opossum-jobs": {"opossum-core"},
    KIT: set(),
    "opossum-backends": {"opossum-core", "opossum-inference"},
    "opossum-actors": {"opossum-core", "opossum-backends"},
    ROOT: {"opossum-core", "opossum-backends", "opossum-actors", "opossum-ledger", "opossum-jobs"},
}
# Which members alone may name crates of a kind.
KINDS = [
    ("actix", re.compile(r"actix(-.*)?|awc"), {"opossum-actors", ROOT}),
    (
        "an HTTP client",
        re.compile(r"hyper(-.*)?|reqwest(-.*)?|ureq|awc|isahc|curl|attohttpc|surf|minreq"),
        {"opossum-backends"},
    ),
    ("a database", re.compile(r"sqlx(-.*)?|rusqlite|libsqlite3-sys|tokio-postgres|diesel(-.*)?"), {"opossum-ledger"}),
    ("an AMQP client", re.compile(r"lapin|amq-protocol(-.*)?|amqprs|fe2o3-amqp"), {"opossum-jobs", KIT}),
    ("burn", re.compile(r"burn(-.*)?|cubecl(-.*)?"), {"opossum-inference"}),
]


def faults(packages):
    """Yields one sentence for each dependency that runs the wrong way."""
    members = {package["name"] for package in packages}
    for name in sorted(members - ARROWS.keys()):
        yield f"{name} is a member that scripts/check-layers.py does not know"
    for package in packages:
        name = package["name"]
        for dependency in package["dependencies"]:
            on = dependency["name"]
            if on in members and on not in ARROWS.get(name, set()):
                if not (on == KIT and dependency["kind"] == "dev"):
                    yield f"{name} depends on {on}"
            for kind, pattern, allowed in KINDS:
                if pattern.fullmatch(on) and name not in allowed:
                    yield f"{name} names {kind}: {on}"


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    packages = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["packages"]
    found = list(faults(packages))
    for fault in found:
        print(f"layers: {fault}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"layers: {len(packages)} crates, all dependencies run one way")


if __name__ == "__main__":
    main()
