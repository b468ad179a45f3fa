"""Write requirements.lock: every package of constraints.txt with the SHA-256 of all its files.

    pip install uv && python tools/lock.py
    pip install --require-hashes -r requirements.lock && pip install --no-deps .

uv decides, within constraints.txt, what is installed with all extras and groups, on every
Python from 3.10 on and on every system. The hashes are those of the Python package index; builds
of torch from elsewhere (for CPUs alone) have others.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {  # each file, and what it is made of
    "requirements.lock": [
        *("pyproject.toml", "--constraint", "constraints.txt"),
        *("--all-extras", "--group", "dev", "--group", "browser", "--python-version", "3.10"),
    ],
    "tools/release.lock": ["tools/release.in", "--python-version", "3.12"],
}
HOW = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url"]


def main() -> None:
    """Write the lock files."""
    for lock, made_of in LOCKS.items():
        command = ["uv", "pip", "compile", "--quiet", *HOW, *made_of, "--output-file", lock]
        done = subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, check=False)
        if done.returncode:
            sys.exit(f"{lock} was not written")
        text = (ROOT / lock).read_text()
        (ROOT / lock).write_text(f"# Written by tools/lock.py; do not edit.\n{text}")


if __name__ == "__main__":
    main()
