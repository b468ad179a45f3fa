"""The transform `Restore`, by the calling conventions of other libraries."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.frontend.recognisers import classifier, normalised
from torch import Tensor, nn

import vrdir
from vrdir.model.vrdir import VRDIR


class TypedTensor(Tensor):
    """A subclass of Tensor that operations do not keep, like torchvision's tv_tensors."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]


def test_torchvisions_calling_convention(
    tiny: VRDIR, photo: Image.Image, photo_batch: Tensor
) -> None:
    restore = vrdir.Restore(tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    target = {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "image_id": 7}
    assert np.array_equal(np.asarray(restore(photo)), expected)
    assert np.array_equal(restore(np.asarray(photo)), expected)
    for image, same in (restore(photo, target), restore((photo, target))):
        assert np.array_equal(np.asarray(image), expected)
        assert same is target
    sample = {"image": photo, "mask": photo}
    answer = restore(sample)
    assert np.array_equal(np.asarray(answer["image"]), expected)
    assert answer["mask"] is photo
    assert sample["image"] is photo
    assert type(restore(photo_batch[0].as_subclass(TypedTensor))) is TypedTensor
    assert len(restore([photo, photo])) == 2
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        restore(normalised(photo_batch))
    with pytest.raises(ValueError, match="no images under any of"):
        restore({"label": 1})


def test_albumentations_calling_convention(tiny: VRDIR, photo: Image.Image) -> None:
    restore = vrdir.Restore(tiny, device="cpu")
    array = np.asarray(photo)
    boxes = [(1, 2, 3, 4)]
    answer = restore(image=array, bboxes=boxes)
    assert set(answer) == {"image", "bboxes"}
    assert np.array_equal(answer["image"], vrdir.Restorer(tiny, "cpu")(array))
    assert answer["bboxes"] is boxes
    assert np.array_equal(restore(array, shape=(75, 97)), answer["image"])  # as A.Lambda calls it


def test_transform_is_a_module(tiny: VRDIR, photo_batch: Tensor, weights: Path) -> None:
    restore = vrdir.Restore(weights, "cpu")
    model = nn.Sequential(restore, classifier())
    with torch.no_grad():
        torch.testing.assert_close(
            model(photo_batch), model[1](vrdir.Restorer(tiny, "cpu")(photo_batch))
        )
    model.train().half()
    assert not any(module.training for module in restore.modules())
    assert {p.dtype for p in restore.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in restore.parameters())
    # A network given by the caller is not frozen.
    given = vrdir.Restore(VRDIR(tiny.config), "cpu").network
    assert all(p.requires_grad for p in given.decoder.parameters())
    other = nn.Sequential(vrdir.Restore(VRDIR(tiny.config), "cpu"), classifier())
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other[0](photo_batch), restore(photo_batch))
    again = copy.deepcopy(restore)
    assert again.restorer.model is again.network
    assert str(model.to("meta")[0]) == "Restore(device='meta', skip_clean=False, channels='rgb')"


def test_transform_can_be_pickled_for_workers(
    tiny: VRDIR, photo: Image.Image, tmp_path: Path
) -> None:
    restore = vrdir.Restore(tiny, device="cpu", skip_clean=True)
    expected = np.asarray(restore(photo))
    (tmp_path / "restore.pickle").write_bytes(pickle.dumps((restore, photo)))
    code = (
        "import pickle, sys, numpy; restore, photo = pickle.load(open(sys.argv[1], 'rb')); "
        "numpy.save(sys.argv[2], numpy.asarray(restore(photo)))"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "restore.pickle", tmp_path / "found.npy"],
        check=True,
    )
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected)
    assert restore.restorer.skip_clean is True


def test_arrays_in_opencv_channel_order(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    rgb = np.asarray(photo)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    expected = vrdir.Restorer(tiny, "cpu")(rgb)
    restorer = vrdir.Restorer(tiny, "cpu", channels="bgr")
    restore = vrdir.Restore(tiny, "cpu", channels="bgr")
    for found in (
        restorer(bgr),
        restorer.restore(bgr).image,
        restore(bgr),
        restore(image=bgr)["image"],
    ):
        assert np.array_equal(found[..., ::-1], expected)
    tensor = torch.from_numpy(bgr).permute(2, 0, 1)
    assert np.array_equal(restorer(tensor).flip(0).permute(1, 2, 0).numpy(), expected)
    photo.save(tmp_path / "photo.png")
    # Pictures and files have their own channel order.
    for picture in (photo, tmp_path / "photo.png"):
        assert np.array_equal(np.asarray(restorer(picture)), expected)
    assert np.array_equal(
        vrdir.degrade(bgr, "haze", seed=3, channels="bgr")[..., ::-1],
        vrdir.degrade(rgb, "haze", seed=3),
    )
    for wrong in (vrdir.Restorer, vrdir.Restore):
        with pytest.raises(ValueError, match='channels must be "rgb" or "bgr", not'):
            wrong(tiny, "cpu", channels="BGR")  # type: ignore[arg-type]
