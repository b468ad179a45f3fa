"""Other packages change torch's defaults for their own models; results here stay the same."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vrdir
from vrdir.model.vrdir import VRDIR

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
BATCH = torch.from_numpy(PHOTO).permute(2, 0, 1)[None] / 255


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype  # it is theirs again
    finally:
        torch.set_default_dtype(before)


def results(weights: Path) -> list[Any]:
    """Return what every way of using a network gives, with the network made now."""
    front_end = vrdir.restore_before(torch.nn.Identity(), weights, range=1)
    return [
        vrdir.Restorer(weights, "cpu")(PHOTO),
        vrdir.Restore(weights, "cpu")(PHOTO),
        next(iter(vrdir.Restorer(weights, "cpu").stream([PHOTO]))),
        front_end(BATCH).numpy(),
        vrdir.degrade(PHOTO, "haze+rain+snow+low_light+noise:sigma=10", seed=1),
    ]


@pytest.mark.parametrize(
    "defaults",
    [default_type(torch.float64), default_type(torch.bfloat16), torch.device("meta")],
    ids=["float64", "bfloat16", "meta"],
)
def test_torch_defaults_change_nothing(
    defaults: AbstractContextManager[None], tiny: VRDIR, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    expected = results(tmp_path)
    with defaults:
        found = results(tmp_path)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
