"""Clean photos and their crops."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrdir.data.loaders import CleanPhotos, photos_in, split


def test_crops_have_the_size_asked_for_even_from_smaller_photos(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    photos = CleanPhotos(photos_in(tmp_path))
    crops = photos.random_crops(7, 64, torch.Generator().manual_seed(0))
    assert crops.shape == (7, 3, 64, 64)
    assert 0 <= float(crops.min()) < float(crops.max()) <= 1
    assert photos.centre_crops(96).shape == (1, 3, 96, 96)


def test_the_generator_decides_the_crops(photo_folder: Path) -> None:
    photos = CleanPhotos(photos_in(photo_folder))
    one, two, other = (photos.random_crops(4, 48, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_an_unreadable_photo_is_logged_and_left_out(photo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = [*photos_in(photo_folder)[:2], tmp_path / "broken.jpg"]
    with caplog.at_level(logging.WARNING):
        assert len(CleanPhotos(paths)) == 2
    assert "broken.jpg" in caplog.text
    with pytest.raises(ValueError, match="none of the 1 photos"):
        CleanPhotos(paths[2:])


def test_the_validation_photos_are_held_out(photo_folder: Path) -> None:
    paths = photos_in(photo_folder)
    training, validation = split(paths, 3)
    assert len(validation) == 3
    assert sorted(training + validation) == paths
    with pytest.raises(ValueError, match="cannot hold 12 of 12"):
        split(paths, 12)


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no photos in"):
        photos_in(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder of clean photos"):
        photos_in(tmp_path / "nowhere")
