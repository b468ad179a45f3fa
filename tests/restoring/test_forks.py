"""Processes that are forked after a network was made compute the same and do not hang."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir.model.vrdir import VRDIR

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")

MAKE = {
    "restorer": "restore = vrdir.Restorer(weights, 'cpu')",
    "transform": "restore = vrdir.Restore(weights, 'cpu')",
    "front-end": "restore = vrdir.restore_before(lambda image: image, weights, device='cpu')",
    "stream": "restorer = vrdir.Restorer(weights, 'cpu'); "
    "restore = lambda image: next(restorer.stream([image]))",
    "degrade": "restore = lambda image: vrdir.degrade(image, 'haze', seed=0)",
}
CODE = """
import multiprocessing, sys, numpy, torch, vrdir
weights, photo = sys.argv[1], numpy.load(sys.argv[2])
torch.set_num_threads(3)
{make}

def work(number):
    return restore(photo)

expected = work(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found in pool.map_async(work, range(4)).get(150):
        assert abs(found.astype(int) - expected).max() <= 1
"""


def in_forked_processes(make: str, weights: Path, photo: Image.Image, folder: Path) -> None:
    """Restore a photo in forked processes and compare it with what their parent makes of it."""
    np.save(folder / "photo.npy", np.asarray(photo.resize((160, 120))))
    command = [sys.executable, "-c", CODE.format(make=make), weights, folder / "photo.npy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", MAKE)
def test_forked_processes_compute(
    kind: str, weights: Path, photo: Image.Image, tmp_path: Path
) -> None:
    in_forked_processes(MAKE[kind], weights, photo, tmp_path)


def test_parent_keeps_its_threads(tiny: VRDIR) -> None:
    before = torch.get_num_threads()
    child = os.fork()
    if child == 0:
        os._exit(torch.get_num_threads())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert torch.get_num_threads() == before
