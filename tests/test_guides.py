"""The guides in docs/extending, followed in a copy of the package with the code from their pages.

The guide for tasks is tested in evaluation/recognition/test_new_task.py, the one for branches in
training/test_train_a_branch.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest
from PIL import Image

import vrdir

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "extending"


def code_blocks(page: str) -> list[str]:
    """Return the Python code of a guide."""
    text = (GUIDES / page).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def indented(entry: str, columns: int) -> str:
    """Return an entry for a table, indented, with the comma that separates it from the next."""
    return indent(f"{entry.rstrip()},\n", columns * " ")


def insert(path: Path, before: str, text: str) -> None:
    """Insert text into a file before a piece of it that is there once."""
    content = path.read_text()
    assert content.count(before) == 1, (path, before)
    path.write_text(content.replace(before, text + before))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package, the tools and the docs, to which the guides' things are added.

    Here a guide's instructions are followed to the letter: change them, and change this.
    """
    root = tmp_path_factory.mktemp("clone")
    package = root / "src" / "vrdir"
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "src" / "vrdir", package, ignore=skip)
    for weights in (ROOT / "src" / "vrdir").rglob("*.safetensors"):
        (package / weights.relative_to(ROOT / "src" / "vrdir")).symlink_to(weights)
    for folder in ("tools", "docs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)

    (package / "degradations" / "dead_pixels.py").write_text(code_blocks("degradation.md")[0])
    insert(package / "degradations" / "registry.py", "    haze,\n", "    dead_pixels,\n")

    module, entry = code_blocks("backend.md")
    (package / "export" / "reference_runtime.py").write_text(module)
    insert(package / "export" / "backends.py", "    )\n}\nBACKEND_NAMES", indented(entry, 8))

    image_entry, video_entry = code_blocks("format.md")
    formats = package / "images" / "formats.py"
    insert(formats, ")\nBY_NAME", indented(image_entry, 4))
    formats.write_text(formats.read_text().replace('".pcx", ', ""))
    insert(package / "video" / "formats.py", ")\nVIDEO_SUFFIXES", indented(video_entry, 4))

    text = (GUIDES / "evaluation.md").read_text()
    metric = re.search(r"^ {8}Metric\(\n.*?^ {8}\),\n", text, re.MULTILINE | re.DOTALL)
    assert metric is not None
    tasks = package / "evaluation" / "recognition" / "tasks"
    insert(tasks / "classification.py", "    )\n    onnx_outputs", metric[0])
    return root


def run(clone: Path, *arguments: object, check: bool = True) -> str:
    """Run Python in the copy and return what it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(clone / "src"), str(ROOT)]),
        "XDG_CACHE_HOME": str(clone / "cache"),
    }
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=clone, capture_output=True, text=True)
    assert (done.returncode == 0) == check, done.stderr
    return done.stdout if check else done.stderr


def test_a_degradation(clone: Path, photo: Image.Image) -> None:
    Image.new("RGB", (200, 150), "white").save(clone / "white.png")
    command = ("-m", "vrdir", "degrade", "white.png", "-o", "dead.png", "--seed", 1)
    run(clone, *command, "--with", "dead_pixels:severity=5")
    black = (np.asarray(Image.open(clone / "dead.png")) == 0).all(-1).mean()
    assert black == pytest.approx(0.1, abs=0.01)
    shown = run(clone, *command, "--overwrite", "--with", "stuck_pixels", check=False)
    assert "did you mean dead_pixels?" in shown
    imports = "import pytest\nfrom tests.degradations.test_formulas import grey, seeded\n"
    test = code_blocks("degradation.md")[2]
    run(clone, "-c", f"{imports}{test}\ntest_dead_pixels_are_black()")
    run(clone, "tools/document_degradations.py")
    assert "| `dead_pixels` | `share` | 0.01 " in (clone / "docs/degradations.md").read_text()


def test_a_metric(clone: Path, photo: Image.Image) -> None:
    for name in "abcd":  # the classifier ranks the right classes first, second, third and last
        (clone / "photos" / name).mkdir(parents=True)
        photo.save(clone / "photos" / name / "1.png")
    (clone / "nets.py").write_text(
        "import numpy as np\n"
        "def rank(images):\n    return np.array([[0.4, 0.3, 0.2, 0.1]] * len(images))\n"
        "rank.classes = list('abcd')\n"
        "def same(image):\n    return image\n"
    )
    command = ("--data", "photos", "--recogniser", "nets:rank", "--with", "noise:sigma=9")
    peer = ("--no-vrdir", "--restorer", "peer=nets:same", "--bootstrap", 50, "--json")
    shown = run(clone, "-m", "vrdir", "evaluate", "classification", *command, *peer)
    clean = json.loads(shown)["results"][0]["clean"]
    assert {key: figure["value"] for key, figure in clean.items()} == {"top1": 25, "top3": 75}
    run(clone, "tools/document_metrics.py")
    page = (clone / "docs/recognition.md").read_text()
    assert "| Top-3, % | share of images whose right class is among the three likeliest |" in page


def test_a_backend(clone: Path, weights: Path, photo: Image.Image) -> None:
    pytest.importorskip("onnxscript")
    photo.crop((0, 0, 40, 30)).save(clone / "photo.png")
    results = {}
    for backend in ("torch", "reference"):
        target = clone / f"{backend}.png"
        command = ("-m", "vrdir", "restore", "photo.png", "-o", target, "--json")
        shown = run(clone, *command, "--weights", weights, "--backend", backend)
        results[backend] = (
            np.asarray(Image.open(target)).astype(int),
            json.loads(shown)["files"][0]["shares"],
        )
    assert np.abs(results["torch"][0] - results["reference"][0]).max() <= 1
    assert results["reference"][1] == pytest.approx(results["torch"][1], abs=1e-4)


def test_an_image_format(clone: Path, weights: Path, photo: Image.Image) -> None:
    photo.convert("RGB").save(clone / "photo.pcx")
    run(clone, "-m", "vrdir", "restore", "photo.pcx", "-o", "clear.pcx", "--weights", weights)
    expected = vrdir.Restorer(weights)(photo.convert("RGB"))
    with Image.open(clone / "clear.pcx") as written:
        assert written.format == "PCX"
        difference = np.asarray(written).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1
    code = "from vrdir.serving.images import FORMATS; print(FORMATS['image/x-pcx'])"
    assert run(clone, "-c", code) == "PCX\n"


def test_a_video_format(clone: Path, weights: Path) -> None:
    pytest.importorskip("av")
    from tests.clips import clip

    from vrdir.video.reading import VideoReader

    clip(clone / "clip.mp4", frames=3)
    run(clone, "-m", "vrdir", "restore", "clip.mp4", "-o", "clear.3gp", "--weights", weights)
    with VideoReader(clone / "clear.3gp") as reader:
        assert len(list(reader.frames())) == 3


def test_tables_of_formats_and_backends(clone: Path) -> None:
    run(clone, "tools/document_formats.py")
    for page, row in (
        ("export.md", "| ONNX reference | `reference` | `export` | .onnx | - |"),
        ("images.md", "| PCX | .pcx | yes | - |"),
        ("video.md", "| .3gp | 3gp | H.264 | 16 |"),
    ):
        assert row in (clone / "docs" / page).read_text()
