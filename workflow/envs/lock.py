"""Write requirements.lock from pip's resolution report on standard input (see `make lock`).

Exact versions of everything, without registry addresses or local build tags. Where torch comes as a CUDA build, pip
adds the CUDA packages that this very version asks for.
"""

import json
import sys
from pathlib import Path

MARKERS = {"dgl": "python_version < '3.12' and platform_machine != 'aarch64'"}  # as in pyproject.toml
HEADER = "# Every version that `make bench` and `make test` install; written by `make lock`.\n"

report = json.load(sys.stdin)
lines = []
for item in report["install"]:
    name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"].split("+")[0]
    if name != "distillbench":
        lines.append(f"{name}=={version}" + (f"; {MARKERS[name]}" if name in MARKERS else ""))
Path("requirements.lock").write_text(HEADER + "\n".join(sorted(lines)) + "\n")
