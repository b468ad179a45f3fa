"""Recognisers that are not modules, by classes with the same calling conventions."""

from pathlib import Path
from types import GeneratorType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.frontend.recognisers import Seen
from torch import Tensor, nn

import vrdir
from vrdir.frontend import RestoredCallable
from vrdir.frontend.connectors import table
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.vrdir import VRDIR


def test_unusable_recognisers_raise(tiny: VRDIR) -> None:
    with pytest.raises(TypeError, match="must be callable"):
        vrdir.restore_before("resnet50", tiny)
    with pytest.raises(TypeError, match="must be callable"):
        vrdir.restore_before(Seen, tiny)
    with pytest.raises(ValueError, match="already has a restorer"):
        vrdir.restore_before(vrdir.restore_before(Seen(), tiny), tiny)
    text = SimpleNamespace(task="text-classification", preprocess=None, image_processor=None)
    with pytest.raises(
        ValueError, match="the pipeline for text-classification has no image processor"
    ):
        vrdir.restore_before(type("TextPipeline", (), {"__call__": print, **vars(text)})(), tiny)


class Session:
    """The calling convention of onnxruntime.InferenceSession."""

    def __init__(self, *inputs: tuple[str, str, list[Any]]) -> None:
        self.inputs = [SimpleNamespace(name=n, type=t, shape=s) for n, t, s in inputs]

    def get_inputs(self) -> list[Any]:
        return self.inputs

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> list[Any]:
        return [input_feed]

    def end_profiling(self) -> str:
        return "profile"

    def custom(self) -> None: ...


def test_onnx_session_is_restored_before(tiny: VRDIR, photo_batch: Tensor) -> None:
    plain = Session(
        ("image", "tensor(float)", ["B", 3, "H", "W"]), ("scale", "tensor(float)", ["B", 2])
    )
    session = vrdir.restore_before(plain, tiny, range=255)
    (feeds,) = session.run(None, {"image": photo_batch.numpy() * 255, "scale": 1})
    assert feeds["image"].flags.c_contiguous
    np.testing.assert_allclose(feeds["image"], tiny(photo_batch).detach().numpy() * 255, atol=1e-2)
    assert feeds["scale"] == 1
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_inputs() is plain.inputs
    assert session.end_profiling() == "profile"
    with pytest.raises(AttributeError, match="custom would bypass"):
        _ = session.custom
    with pytest.raises(ValueError, match="'image' is not among the inputs given: scale"):
        session.run(None, {"scale": 1})
    two = Session(("left", "tensor(float)", [1, 3, 8, 8]), ("right", "tensor(float)", [1, 3, 8, 8]))
    with pytest.raises(
        ValueError,
        match=r"several inputs could be the image: left tensor\(float\) \[1, 3, 8, 8\], right",
    ):
        vrdir.restore_before(two, tiny)
    assert vrdir.restore_before(two, tiny, argument="right").input_name == "right"
    for mask in ([1, 1, "H", "W"], ["B", "C", "H", "W"], [1, 3, 8, 8]):
        for image in (["B", 3, "H", "W"], ["B", "H", "W", 3]):
            masked = Session(("mask", "tensor(float)", mask), ("image", "tensor(float)", image))
            assert vrdir.restore_before(masked, tiny).input_name == "image"
    unnamed = Session(
        ("a", "tensor(float)", [1, 1, "H", "W"]), ("b", "tensor(float)", [1, 3, "H", "W"])
    )
    assert vrdir.restore_before(unnamed, tiny).input_name == "b"
    with pytest.raises(ValueError, match="no input 'middle'"):
        vrdir.restore_before(two, tiny, argument="middle")
    with pytest.raises(ValueError, match="no input looks like an image"):
        vrdir.restore_before(Session(("tokens", "tensor(int64)", ["B", "L"])), tiny)


class Predictor:
    """A recogniser with a calling convention that no connector knows."""

    def predict(self, image: Any) -> Any:
        return image


class RestoredPredictor(RestoredCallable):
    """A connector for it, written as docs/frontend.md describes."""

    @classmethod
    def accepts(cls, recogniser: Any) -> bool:
        return hasattr(recogniser, "predict")

    def predict(self, image: Any) -> Any:
        return self.recogniser.predict(self.front_end(image))


def test_new_connector_needs_one_table_entry(
    tiny: VRDIR, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TypeError, match="must be callable"):
        vrdir.restore_before(Predictor(), tiny)
    monkeypatch.setattr(table, "CONNECTORS", (RestoredPredictor, *table.CONNECTORS))
    model = vrdir.restore_before(Predictor(), tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    assert np.array_equal(np.asarray(model.predict(photo)), expected)
    assert isinstance(vrdir.restore_before(Yolo(), tiny, device="cpu"), RestoredCallable)


class Pipeline:
    """The calling convention of a Hugging Face image pipeline."""

    task, image_processor = "object-detection", object()

    def __call__(self, inputs: Any, **options: Any) -> Any:
        if isinstance(inputs, (list, tuple)):
            return [self(image) for image in inputs]
        # transformers accepts a generator, but no other iterator
        if isinstance(inputs, GeneratorType):
            return (self(image) for image in inputs)
        assert isinstance(inputs, (Image.Image, dict))
        return inputs

    def preprocess(self, image: Any) -> Any:
        return image


def test_hugging_face_pipeline_is_restored_before(
    tiny: VRDIR, photo: Image.Image, tmp_path: Path
) -> None:
    pipeline = vrdir.restore_before(Pipeline(), tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    photo.save(tmp_path / "photo.png")
    for images in (photo, str(tmp_path / "photo.png")):
        assert np.array_equal(np.asarray(pipeline(images, threshold=0.5)), expected)
    assert [np.array_equal(np.asarray(i), expected) for i in pipeline([photo, photo])] == [
        True,
        True,
    ]
    question = pipeline({"image": photo, "question": "what?"})
    assert np.array_equal(np.asarray(question["image"]), expected)
    assert question["question"] == "what?"
    drawn: list[int] = []

    def stream() -> Any:
        for i in range(2):
            drawn.append(i)
            yield photo

    answers = pipeline(stream())
    assert drawn == []  # images are read one by one, on demand
    assert np.array_equal(np.asarray(next(answers)), expected)
    assert drawn == [0]
    assert pipeline.task == "object-detection"


class Yolo(nn.Module):
    """The calling convention of ultralytics.YOLO.

    It is a module, but takes images of any kind; arrays are BGR.
    """

    __module__ = "ultralytics.engine.model"

    def __call__(self, source: Any = None, stream: bool = False, **options: Any) -> Any:
        return source, stream

    def track(self, source: Any = None, **options: Any) -> Any:
        return source


def test_ultralytics_model_is_restored_before(
    tiny: VRDIR, photo: Image.Image, tmp_path: Path
) -> None:
    model = vrdir.restore_before(Yolo(), tiny, device="cpu")
    expected = np.asarray(vrdir.Restorer(tiny, "cpu")(photo))
    bgr = np.asarray(photo)[..., ::-1]
    source, stream = model(bgr, True)
    assert stream
    assert source.flags.c_contiguous
    assert np.array_equal(source[..., ::-1], expected)
    assert np.array_equal(np.asarray(model.track(photo, persist=True)), expected)
    photo.save(tmp_path / "photo.png")
    opened = model(tmp_path / "photo.png")[0]
    assert np.array_equal(np.asarray(opened), expected)
    assert opened.filename == str(tmp_path / "photo.png")
    assert len(model([photo, bgr])[0]) == 2
    with pytest.raises(ValueError, match="cannot find images in a int"):
        model(0)
    for source in (tmp_path, tmp_path / "*.png", str(tmp_path / "clip.mp4")):
        with pytest.raises(ValueError, match=r"is not one image; restore it to files first"):
            model(source)
    assert (
        vrdir.Restore(tiny, "cpu")(photo).size
        == model(DeepPicture(np.asarray(photo).astype(np.uint16) * 257, {}))[0].size
    )
    with pytest.raises(
        ValueError, match="arrays are BGR and its tensors RGB; do not pass channels="
    ):
        vrdir.restore_before(Yolo(), tiny, device="cpu", channels="bgr")
    with pytest.raises(AttributeError, match="Yolo.to would bypass"):
        _ = model.to
