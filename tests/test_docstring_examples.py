"""The examples in docstrings run, with the objects that their readers have.

Where an example shows what is printed, that must be printed. Elsewhere it must only run.
"""

import doctest
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vrdir

# Modules whose examples use a package that the tests do not install.
PACKAGES = {
    "vrdir.frontend.albumentations": "albumentations",
    "vrdir.frontend.spandrel": "spandrel",
    "vrdir.frontend.transform": "torchvision",
}


class ShownOutput(doctest.OutputChecker):
    """Compares what was printed, where the example shows it."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Return whether the example printed what it shows."""
        return not want or super().check_output(want, got, optionflags)


def modules() -> list[str]:
    """Return the names of all modules with an example, without importing the others."""
    found = []
    for module in pkgutil.walk_packages(vrdir.__path__, "vrdir."):
        spec = module.module_finder.find_spec(module.name, None)  # type: ignore[call-arg]
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123
            if ">>> " in file.read():
                found.append(module.name)
    return ["vrdir", *found]


@pytest.fixture
def given(photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the objects that examples use without making them, in a folder with photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/foggy").mkdir(parents=True)
    photo.save("photos/foggy/one.png")
    pixels = np.array(photo)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
    return {
        "Path": Path,
        "vrdir": vrdir,
        "restorer": vrdir.Restorer(),
        "photo": photo,
        "foggy": photo,
        "frame": pixels,
        "frames": [pixels, pixels],
        "camera": [pixels, pixels],
        "model": network.eval(),
        "images": (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.45) / 0.225,
        "show": lambda frame: None,
    }


@pytest.mark.parametrize("name", modules())
def test_examples_run(name: str, given: dict[str, Any]) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(ShownOutput(), optionflags=flags)
    for example in doctest.DocTestFinder().find(module, extraglobs=given):
        runner.run(example)
    assert runner.failures == 0
