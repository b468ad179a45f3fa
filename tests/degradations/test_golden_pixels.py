"""The same seed gives the same pixels and parameters as when golden_pixels.json was written.

`python -m tests.degradations.test_golden_pixels` writes the file again, after an intended change
to change pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Generator, Tensor

from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.mixture import CLEAN, MIXED, degrade_mixture
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.degradations.steps import ranges_of

FILE = Path(__file__).parent / "golden_pixels.json"
GOLDEN: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
RANGES = "haze:warmth=-0.3..0.3,unevenness=0..0.5,light=0.5..1,depth=mixed+rain:clear_air=0.45"
POINTS = ((0, 0), (11, 50), (40, 40), (63, 7), (79, 95))


def batch() -> Tensor:
    """Two photos, (2, 3, 80, 96)."""
    photo = Image.open(Path(skimage.data.__file__).parent / "astronaut.png").convert("RGB")
    image = torch.from_numpy(np.array(photo.resize((96, 80)))).permute(2, 0, 1)[None] / 255
    return torch.cat([image, image.flip(3)])


def pixels(image: Tensor) -> list[float]:
    return [round(v, 6) for y, x in POINTS for v in image[:, :, y, x].flatten().tolist()]


def of_degradation(name: str, severity: int | None) -> dict[str, Any]:
    degraded = apply_degradation(batch(), name, Generator().manual_seed(3), severity=severity)
    drawn = {key: value.flatten().tolist() for key, value in degraded.parameters.items()}
    return {"pixels": pixels(degraded.image), "drawn": dict(sorted(drawn.items()))}


def of_mixture() -> dict[str, Any]:
    names = ("haze", "rain", "noise", "snow", "low_light")
    shares = {MIXED: 2.0, CLEAN: 1.0, "haze": 1.0, "rain": 1.0}
    generators = [Generator().manual_seed(seed) for seed in range(8)]
    mixture = degrade_mixture(
        batch().repeat(4, 1, 1, 1), shares, names, generators, ranges_of(RANGES), jpeg_share=0.5
    )
    present = mixture.present.int().tolist()
    return {"pixels": pixels(mixture.image), "kinds": mixture.kinds, "present": present}


def near(found: list[float], wanted: list[float], level: float) -> bool:
    """Whether values agree, except for a level of 8 bits where a rounding falls the other way."""
    differences = np.abs(np.array(found) - np.array(wanted))
    return bool(np.median(differences) < 1e-5 and differences.max() < level)


@pytest.mark.parametrize("key", [key for key in GOLDEN if key != "mixture"])
def test_pixels_and_parameters_stay_the_same(key: str) -> None:
    name, _, severity = key.partition(":")
    found, wanted = of_degradation(name, int(severity) if severity else None), GOLDEN[key]
    assert near(found["pixels"], wanted["pixels"], 3 / 255)
    assert found["drawn"].keys() == wanted["drawn"].keys()
    for parameter, values in wanted["drawn"].items():
        assert found["drawn"][parameter] == pytest.approx(values, rel=1e-5), parameter


def test_mixture_stays_the_same() -> None:
    found, wanted = of_mixture(), GOLDEN["mixture"]
    assert found["kinds"] == wanted["kinds"]
    assert found["present"] == wanted["present"]
    assert near(found["pixels"], wanted["pixels"], 3 / 255)


def test_golden_values_cover_every_degradation() -> None:
    assert {key.partition(":")[0] for key in GOLDEN} - {"mixture"} <= DEGRADATIONS.keys()
    assert len(GOLDEN) == 2 * 12 + 1


if __name__ == "__main__":
    values = {
        f"{name}:{severity}" if severity else name: of_degradation(name, severity)
        for name in DEGRADATIONS
        for severity in (None, 4)
    }
    lines = [
        f"{json.dumps(k)}: {json.dumps(v)}" for k, v in (values | {"mixture": of_mixture()}).items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
