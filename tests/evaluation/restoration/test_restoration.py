"""Pairs restored and measured: figures, exclusions, examples and verdicts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vrdir.data.pairs import Pair, read_pairs
from vrdir.evaluation.recognition.conditions import Condition
from vrdir.evaluation.recognition.image_files import ImageFile
from vrdir.evaluation.recognition.restorers import function_for_images
from vrdir.evaluation.recognition.variants import Variant, Variants
from vrdir.evaluation.restoration.metrics import METRICS, Scores, measure
from vrdir.evaluation.restoration.protocol import ExcludedPair, Measured, SetResult, measure_pairs
from vrdir.evaluation.restoration.restorers import (
    check_restored_names,
    folder_for_pairs,
    network_for_pairs,
    pair_name,
)
from vrdir.evaluation.restoration.summary import set_label, verdict
from vrdir.images.convert import open_image
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.restorer import Restorer


def scores(psnr: float) -> Scores:
    return {metric.key: psnr if metric.label.startswith("PSNR") else 0.5 for metric in METRICS}


def scored(name: str, before: float, after: float, line: int = 1) -> Measured:
    return Measured(
        Pair(Path("clean") / name, Path(name), "", line),
        20,
        16,
        scores(before),
        scores(after),
    )


@pytest.fixture
def pairs(photo: Image.Image, tmp_path: Path) -> list[Pair]:
    photo.save(tmp_path / "clean.png")
    photo.point(lambda v: v // 2).save(tmp_path / "dark.png")
    photo.crop((0, 0, 40, 40)).save(tmp_path / "small.png")
    photo.crop((0, 0, 40, 9)).save(tmp_path / "strip.png")
    (tmp_path / "pairs.txt").write_text(
        "dark.png|clean.png\nsmall.png|clean.png\nnowhere.png|clean.png\nstrip.png|strip.png\n"
    )
    return read_pairs(tmp_path / "pairs.txt")


def test_pairs_that_cannot_be_measured_are_excluded_by_name(pairs: list[Pair], tiny: VRDIR) -> None:
    done, other_size, missing, strip = measure_pairs(
        pairs, network_for_pairs(Restorer(tiny, "cpu"))
    )
    assert isinstance(done, Measured)
    assert (done.width, done.height) == (97, 75)
    for row, message in (
        (other_size, "40 x 40"),
        (missing, "nowhere.png does not exist"),
        (strip, "SSIM needs at least 11 pixels"),
    ):
        assert isinstance(row, ExcludedPair)
        assert message in row.reason


def test_network_results_are_rounded_to_8_bits(pairs: list[Pair], tiny: VRDIR) -> None:
    degraded, clean = (open_image(path).tensor for path in (pairs[0].degraded, pairs[0].clean))
    restorer = Restorer(tiny, "cpu")
    image = network_for_pairs(restorer)(pairs[0], degraded)
    assert torch.equal((image * 255).round() / 255, image)
    assert (image - restorer(degraded)).abs().max() <= 0.5 / 255 + 1e-6
    (row,) = measure_pairs(pairs[:1], network_for_pairs(restorer))
    assert isinstance(row, Measured)
    assert row.degraded == measure(degraded, clean)
    assert row.restored == measure(image, clean)
    assert row.gain == row.restored["psnr_rgb"] - row.degraded["psnr_rgb"] != 0


def test_grey_images_are_restored_as_grey_files_are(
    photo: Image.Image, tiny: VRDIR, tmp_path: Path
) -> None:
    for name, shift in (("clean", 0), ("pale", 40)):
        photo.convert("L").point(lambda v, shift=shift: v // 2 + shift).save(
            tmp_path / f"{name}.png"
        )
    restorer = Restorer(tiny, "cpu")
    restorer.restore_file(tmp_path / "pale.png", tmp_path / "restored.png")
    (row,) = measure_pairs(
        [Pair(tmp_path / "clean.png", tmp_path / "pale.png", "", 1)], network_for_pairs(restorer)
    )
    assert isinstance(row, Measured)
    clean, restored = (
        open_image(tmp_path / f"{name}.png").tensor for name in ("clean", "restored")
    )
    assert row.restored == pytest.approx(measure(restored, clean), abs=1e-3)
    seen: list[Any] = []
    image = ImageFile("pale", tmp_path / "pale.png")
    variants = Variants([Condition("jpeg")], {"vrdir": restorer}, 0)
    for variant, pixels in variants.images(image):
        seen.append(pixels)
        if variant == ("clean", "vrdir"):
            assert np.array_equal(
                pixels, np.asarray(Image.open(tmp_path / "restored.png").convert("RGB"))
            )
    assert len(seen) == 4


def test_recogniser_that_changes_its_input_affects_no_other_variant(
    photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "a.png")
    variants = Variants(
        [Condition("jpeg")], {"nothing": function_for_images(lambda image: image)}, 0
    )
    seen = {}
    for variant, pixels in variants.images(ImageFile("a", tmp_path / "a.png")):
        seen[variant] = pixels.copy()
        pixels[:] = 0
    for condition in ("clean", "jpeg"):
        before, after = (seen[Variant(condition, name)] for name in ("", "nothing"))
        assert before.any()
        assert np.array_equal(before, after)


def test_restorer_that_raises_or_returns_nan_excludes_one_pair(pairs: list[Pair]) -> None:
    def fails(pair: Pair, degraded: Tensor) -> Tensor:
        raise RuntimeError("out of memory\nand much more")

    (row,) = measure_pairs(pairs[:1], fails)
    assert row == ExcludedPair(pairs[0], "out of memory")
    (row,) = measure_pairs(pairs[:1], lambda pair, degraded: degraded * torch.nan)
    assert isinstance(row, ExcludedPair)
    assert "NaN" in row.reason


def test_restored_images_from_files(pairs: list[Pair], photo: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "restored"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        folder_for_pairs(folder)
    photo.save(folder / "dark.webp", lossless=True)
    (row,) = measure_pairs(pairs[:1], folder_for_pairs(folder))
    assert isinstance(row, Measured)
    assert row.restored["psnr_rgb"] == 100  # the very clean photo
    photo.save(folder / "dark.bmp")
    (row,) = measure_pairs(pairs[:1], folder_for_pairs(folder))
    assert isinstance(row, ExcludedPair)
    assert "contains dark.bmp and dark.webp" in row.reason
    (folder / "dark.bmp").unlink()
    photo.crop((0, 0, 40, 40)).save(folder / "dark.webp")
    (row,) = measure_pairs(pairs[:1], folder_for_pairs(folder))
    assert isinstance(row, ExcludedPair)
    assert "different sizes, 40 x 40 and 97 x 75 pixels" in row.reason
    (folder / "dark.webp").rename(folder / "other.webp")
    (row,) = measure_pairs(pairs[:1], folder_for_pairs(folder))
    assert isinstance(row, ExcludedPair)
    assert "contains no dark.*" in row.reason


def test_restored_file_with_decomposed_letters_is_found(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "restored").mkdir()
    for path in ("caf\u00e9.png", "restored/cafe\u0301.png"):
        photo.save(tmp_path / path)
    pair = Pair(tmp_path / "caf\u00e9.png", tmp_path / "caf\u00e9.png", "", 1)
    (row,) = measure_pairs([pair], folder_for_pairs(tmp_path / "restored"))
    assert isinstance(row, Measured)


def test_folder_unfit_for_one_result_per_pair_is_rejected(pairs: list[Pair]) -> None:
    check_restored_names([*pairs, pairs[0]])  # the same degraded file twice has one result
    with pytest.raises(ValueError, match="would have the same restored file dark"):
        check_restored_names([*pairs, pairs[0]._replace(degraded=Path("elsewhere/dark.jpg"))])
    with pytest.raises(ValueError, match=r"clean.png \(noise:sigma=25\) has no degraded file"):
        check_restored_names([pairs[0]._replace(degraded=None, synthesis="noise:sigma=25")])


def test_means_examples_and_verdict() -> None:
    images = [scored("a", 20, 30), scored("b", 24.25, 24), scored("c", 30, 27), scored("d", 10, 40)]
    excluded = ExcludedPair(Pair(Path("e"), None, "noise:sigma=25", 9), "gone")
    result = SetResult("set", Path("set.txt"), [*images, excluded])
    assert result.degraded is not None
    assert result.restored is not None
    assert (result.degraded["psnr_rgb"], result.restored["psnr_rgb"]) == (21.0625, 30.25)
    assert (len(result.images), len(result.excluded), result.synthetic) == (4, 1, 1)
    assert {title: pair_name(image.pair) for title, image in result.examples.items()} == {
        "worst": "b", "median": "c", "best": "d", "most harmed": "c"
    }  # fmt: skip
    assert set_label(result) == "set (1 of 5 synthetic)"
    assert verdict(result) == (
        "1 of 5 pairs excluded. PSNR rises from 21.06 to 30.25 dB (RGB, mean of 4 images). "
        "2 of 4 got worse, 1 of them by more than 0.5 dB; 1.62 dB on average, 3.00 dB at most (c)."
    )


def test_verdict_names_pixels_driven_into_black() -> None:
    image = scored("a", 20, 30)
    few, many = (
        image._replace(
            degraded={**image.degraded, "not_black": 100},
            restored={**image.restored, "not_black": share},
        )
        for share in (99.96, 99.5)
    )
    assert "black" not in verdict(SetResult("set", Path("set.txt"), [few]))
    assert verdict(SetResult("set", Path("set.txt"), [few, many])).endswith(
        " No image got worse. 0.27 % of the pixels were driven into black."
    )
    clean = many._replace(degraded={**many.degraded, "psnr_rgb": 100})
    assert verdict(SetResult("set", Path("set.txt"), [clean])).endswith(
        "30.00 dB at worst (a). 0.50 % of the pixels were driven into black."
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [scored("a", 20, 30)],
            "PSNR rises from 20.00 to 30.00 dB (RGB, one image). No image got worse.",
        ),
        (
            [scored("a", 30, 20)],
            "PSNR falls from 30.00 to 20.00 dB (RGB, one image). "
            "1 of 1 got worse, by 10.00 dB (a).",
        ),
        (
            [scored("a", 20, 20.01)],
            "PSNR rises from 20.00 to 20.01 dB (RGB, one image). No image got worse.",
        ),
        ([scored("a", 20, 20.001)], "PSNR stays at 20.00 dB (RGB, one image). No image got worse."),
        (
            [scored("a", 100, 40), scored("b", 20, 30)],
            "PSNR falls from 60.00 to 35.00 dB (RGB, mean of 2 images). "
            "1 of 2 got worse, by 60.00 dB (a). In 1 of 2 the degraded or the restored image "
            "is the clean one itself, which counts as 100 dB.",
        ),
        (
            [scored("a", 100, 40), scored("b", 100, 30)],
            "The inputs are the clean images themselves. "
            "Restoring leaves 35.00 dB (RGB, mean of 2 images), 30.00 dB at worst (b).",
        ),
        (
            [ExcludedPair(Pair(Path("e"), None, "noise", 9), "gone")],
            "1 of 1 pair excluded. Nothing was measured.",
        ),
    ],
)
def test_verdicts(rows: list[Measured | ExcludedPair], expected: str) -> None:
    result = SetResult("set", Path("set.txt"), rows)
    assert verdict(result) == expected
