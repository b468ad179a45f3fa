"""Check an installation of vrdir without extras: what needs none works, the rest names its extra.

    python -m venv bare && bare/bin/pip install dist/*.whl
    bare/bin/python tools/check_without_extras.py

Run it outside the checkout, with a Python that has no extra of vrdir: the script ends with an error
if one is installed. Each command that needs an extra must end with exit status 1 or 2 and one line
that contains `pip install 'vrdir[EXTRA]'`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

PHOTO = "page/samples/haze.jpg"
OF_EXTRAS = ("av", "lightning_fabric", "onnx", "pyarrow", "ray", "scipy", "starlette")
WORKING = (
    "--help",
    "info",
    "weights verify",
    "restore photo.jpg -o clear.jpg",
    "restore photos -o restored",
    "degrade photo.jpg -o foggy.png --with haze:severity=3",
    "pairs build --degraded photos --clean clean -o pairs.txt",
)
NEEDING = {
    "serve": "serve",
    "live clip.mp4": "serve",
    "live clip.mp4 -o restored.mkv": "video",
    "restore clip.mp4 -o restored.mp4": "video",
    "web build site": "export",
    "export onnx -o exported.onnx": "export",
    "export openvino -o exported.xml": "openvino",
    "restore photo.jpg -o clear.png --weights network.onnx --backend onnx": "export",
    "restore photo.jpg -o clear.png --weights network.onnx --backend openvino": "openvino",
    "restore photo.jpg -o clear.heic": "heic",
    "restore photo.jpg -o clear.png --weights someone/weights": "hub",
    "restore s3://bucket/foggy -o s3://bucket/clear": "s3",
    "restore https://host/photo.jpg -o restored": "s3",
    "plan s3://bucket/foggy": "s3",
    "restore photos -o restored --engine ray": "cluster",
    "evaluate restoration --pairs pairs.txt": "evaluate",
    "evaluate classification --data photos --recogniser network.onnx": "evaluate",
    "evaluate detection --data photos --recogniser network.onnx": "evaluate",
    "evaluate reid --data photos --recogniser network.onnx": "evaluate",
    "train decoder --clean photos --work-dir run": "train",
    "adapt --recogniser module:function --clean photos -o adapted": "train,evaluate",
}


def prepare(folder: Path) -> None:
    """Write the files that the commands name; those for an extra need no valid content."""
    photo = Path(str(files("vrdir.serving"))) / PHOTO
    for name in ("photos", "clean"):
        (folder / name).mkdir()
    for target in ("photo.jpg", "photos/1.jpg", "clean/1.jpg"):
        shutil.copy(photo, folder / target)
    for target in ("clip.mp4", "network.onnx"):
        (folder / target).write_bytes(b"content")


def run(command: str, folder: Path) -> tuple[int, list[str]]:
    """Run a command of vrdir in a folder; return its exit status and the lines of its errors."""
    done = subprocess.run(
        [sys.executable, "-m", "vrdir", *command.split()],
        cwd=folder,
        env={**os.environ, "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.strip().splitlines()


def problems(folder: Path) -> list[str]:
    """Return what is wrong, one line for each command."""
    found = []
    for command in WORKING:
        status, lines = run(command, folder)
        if status != 0:
            found.append(f"vrdir {command}: exit status {status}, {' / '.join(lines[-3:])}")
    for command, extra in NEEDING.items():
        status, lines = run(command, folder)
        advice = [line for line in lines if line.endswith(f": pip install 'vrdir[{extra}]'")]
        # A run over files prints a summary after the line about the file.
        others = [line for line in lines if line not in advice and "1 failed" not in line]
        if status not in (1, 2) or len(advice) != 1 or others:
            found.append(f"vrdir {command}: exit status {status}, {' / '.join(lines[-3:])}")
    return found


def main() -> None:
    """Run all commands, print what is wrong, and exit with 1 if anything is."""
    installed = [name for name in OF_EXTRAS if importlib.util.find_spec(name)]
    if installed:
        sys.exit(f"this Python has packages of extras: {', '.join(installed)}")
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        found = problems(Path(name))
    if found:
        sys.exit("\n".join(found))
    print(f"{len(WORKING)} commands work, {len(NEEDING)} name the extra that they need")


if __name__ == "__main__":
    main()
