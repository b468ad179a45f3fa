"""Write a lock file for this Python and this machine: each package's version and SHA-256.

    python tools/lock.py requirements.lock --extra train --extra evaluate
    pip install --require-hashes -r requirements.lock && pip install --no-deps .

pip decides what to install, within constraints.txt, and reports it; nothing is installed. The
repository holds no lock file, since wheels, and so hashes, differ between Pythons, systems and
package indexes (CPU and CUDA builds of torch).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vrdir.errors import DataError

ROOT = Path(__file__).parents[1]


def report_of(wanted: Sequence[str], constraints: Path | None) -> dict[str, Any]:
    """Return pip's report of what it would install.

    Raises:
        CalledProcessError: pip cannot install it; it has printed why.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--report",
        "-",
    ]
    command += ["--constraint", str(constraints)] if constraints is not None else []
    return json.loads(
        subprocess.run([*command, *wanted], stdout=subprocess.PIPE, check=True).stdout
    )


def lock_of(report: dict[str, Any]) -> str:
    """Return the text of a lock file.

    Packages that are folders on this machine are left out.

    Raises:
        DataError: a package has no hash.
    """
    lines = []
    for item in report["install"]:
        name, version, source = (
            item["metadata"]["name"],
            item["metadata"]["version"],
            item["download_info"],
        )
        if "dir_info" in source:
            continue
        sha256 = source.get("archive_info", {}).get("hashes", {}).get("sha256")
        if sha256 is None:
            raise DataError(
                f"{name} {version} has no SHA-256 in pip's report; install it from a package index"
            )
        lines.append(
            f"{name.lower().replace('_', '-')}=={version} \\\n    --hash=sha256:{sha256}\n"
        )
    return "".join(sorted(lines))


def main() -> None:
    """Write the lock file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the lock file")
    parser.add_argument(
        "--extra",
        action="append",
        default=[],
        help="an extra of pyproject.toml; repeat it for more",
    )
    given = parser.parse_args()
    extras = f"[{','.join(given.extra)}]" if given.extra else ""
    lock = lock_of(report_of([f"{ROOT}{extras}"], ROOT / "constraints.txt"))
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    given.output.write_text(f"# vrdir{extras} for {system}, by tools/lock.py\n{lock}")


if __name__ == "__main__":
    main()
