"""Recognisers: how they are given, called, and which of their layers are taken."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from vrdir.adaptation.answers import Classes, Embeddings, Maps
from vrdir.adaptation.layers import find_layers
from vrdir.adaptation.recogniser import InputFormat, load_recogniser
from vrdir.errors import InputError, MissingFileError, RecogniserError

MODULE = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

made = Net()
def model():
    return Net()
def number():
    return 3
def needs(argument):
    return Net()
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine_of_test", None)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("name", ["model", "made", "Net"])
def test_module_or_function_returning_one_is_accepted(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = load_recogniser(f"mine_of_test:{name}")
    assert isinstance(found.kind, Classes)
    assert found.size == (224, 224)
    assert not any(p.requires_grad for p in found.module.parameters())
    assert "RGB in [0, 1] is assumed" in caplog.text


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mine_of_test:number", "returns a int"),
        ("mine_of_test:needs", "cannot be called without arguments"),
        ("mine_of_test", "is not a recogniser"),
        ("mine_of_test:nothing", "no function 'nothing'"),
        ("no_such_module:model", "cannot be imported"),
    ],
)
def test_non_module_is_rejected(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recogniser(spec)


def test_normalisation_is_read_or_declared(classifier: nn.Module) -> None:
    classifier.pretrained_cfg = {  # type: ignore[assignment]
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.2),
        "input_size": (3, 64, 48),
    }
    image = torch.rand(2, 3, 64, 48)
    found = load_recogniser(classifier)
    assert found.size == (64, 48)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    assert torch.allclose(found.answers(image), classifier((image - mean) / 0.2), atol=1e-5)
    declared = load_recogniser(classifier, input_format=InputFormat(32, 0.0, 1.0, 255, "bgr"))
    assert declared.size == (32, 32)
    image = torch.rand(2, 3, 32, 32)
    expected = classifier(255 * image.flip(1))
    assert torch.allclose(declared.answers(image), expected, rtol=1e-4, atol=1e-3)


def test_gradients_reach_the_image(classifier: nn.Module) -> None:
    found = load_recogniser(classifier, layers=["early"])
    image = torch.rand(1, 3, 40, 40, requires_grad=True)
    seen = found.see(image)
    assert [tuple(f.shape) for f in seen.features] == [(1, 8, 112, 112)]
    (seen.features[0].mean() + seen.answers.sum()).backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_layers_are_the_last_ones_of_each_resolution(classifier: nn.Module) -> None:
    assert list(load_recogniser(classifier).layers) == ["late.0", "late"]


def test_layers_of_a_transformer_are_in_the_middle_and_at_the_end() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 16, 16)
            self.blocks = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(self.embed(x).flatten(2).transpose(1, 2)).mean(1)

    module = Patches()
    layers = find_layers(module, lambda: module(torch.rand(1, 3, 64, 64)), 64)
    assert layers == ["blocks.2", "blocks.3"]


def test_error_names_unknown_layer(classifier: nn.Module) -> None:
    with pytest.raises(RecogniserError, match="no layer 'erly'; did you mean early"):
        load_recogniser(classifier, layers=["erly"])


def test_error_names_unknown_task(classifier: nn.Module) -> None:
    with pytest.raises(InputError, match="unknown task 'segmentation'"):
        load_recogniser(classifier, "segmentation")


def test_error_names_failing_recogniser() -> None:
    with pytest.raises(RecogniserError, match="Linear cannot be called with images"):
        load_recogniser(nn.Linear(3, 3))


def test_outputs_of_transformers_are_known() -> None:
    class Model(nn.Module):
        main_input_name = "pixel_values"
        config = SimpleNamespace(num_labels=2)

        def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
            return {"logits": pixel_values.mean((2, 3))}

    assert isinstance(load_recogniser(Model()).kind, Classes)


def constant(name: str, values: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(values, name)


def onnx_file(path: Path, nodes: list[onnx.NodeProto], output: tuple[str, list[int]]) -> Path:
    generator = np.random.default_rng(0)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, 32, 32])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [
            constant("w", generator.normal(size=(6, 3, 3, 3)).astype(np.float32)),
            constant("v", generator.normal(size=(8, 6, 3, 3)).astype(np.float32)),
            constant("m", generator.normal(size=(8, 4)).astype(np.float32)),
            constant("c", np.zeros(4, np.float32)),
            constant("flat", np.array([0, 8, -1], np.int64)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


BODY = [
    helper.make_node("Conv", ["image", "w"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("Conv", ["b", "v"], ["d"], strides=[2, 2], pads=[1, 1, 1, 1]),
]


def test_onnx_classifier_matches_onnxruntime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    nodes = [
        *BODY,
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "m", "c"], ["logits"]),
    ]
    path = onnx_file(tmp_path / "tiny.onnx", nodes, ("logits", [0, 4]))
    found = load_recogniser(str(path))
    assert isinstance(found.kind, Classes)
    assert found.size == (32, 32)
    assert list(found.layers) == ["b", "d"]
    image = torch.rand(3, 3, 32, 32)
    (expected,) = runtime.InferenceSession(str(path)).run(None, {"image": image.numpy()})
    assert np.allclose(found.answers(image).numpy(), expected, atol=1e-5)
    assert isinstance(load_recogniser(str(path), "reid").kind, Embeddings)
    assert list(load_recogniser(str(path), layers=["a"]).layers) == ["a"]
    with pytest.raises(RecogniserError, match="no tensor nothing"):
        load_recogniser(str(path), layers=["nothing"])


def test_onnx_detector_is_compared_on_its_raw_predictions(tmp_path: Path) -> None:
    nodes = [
        *BODY,
        helper.make_node("Sigmoid", ["d"], ["map"]),
        helper.make_node("Reshape", ["map", "flat"], ["rows"]),
        helper.make_node("Hardmax", ["rows"], ["boxes"]),
    ]
    found = load_recogniser(str(onnx_file(tmp_path / "d.onnx", nodes, ("boxes", [0, 8, 64]))))
    assert isinstance(found.kind, Maps)
    assert list(found.layers) == ["b"]
    assert [tuple(t.shape) for t in found.answers(torch.rand(2, 3, 32, 32))] == [(2, 8, 8, 8)]


def test_operators_compute_what_onnxruntime_computes(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    sides = constant("", np.array([0, 0, 1, 2, 0, 0, 3, 0]))
    pads = helper.make_node("Constant", [], ["pads"], value=sides)
    half = helper.make_node("Constant", [], ["half"], value=constant("", np.float32(0.5)))
    ones = helper.make_node("Constant", [], ["ones"], value=constant("", np.ones(8, np.float32)))
    two = helper.make_node("Constant", [], ["two"], value=constant("", np.array([2])))
    first = helper.make_node("Constant", [], ["first"], value=constant("", np.array(0)))
    pooled = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        pads, half, ones, two, first,
        *BODY,
        helper.make_node("BatchNormalization", ["d", "ones", "ones", "ones", "ones"], ["n"]),
        helper.make_node("Tanh", ["n"], ["t"]),
        helper.make_node("Pad", ["t", "pads", "half"], ["q"]),
        helper.make_node("AveragePool", ["q"], ["r"], **pooled),
        helper.make_node("MaxPool", ["r"], ["s"], **pooled),
        helper.make_node("Pow", ["s", "two_f"], ["u"]),
        helper.make_node("ReduceMean", ["u"], ["v2"], axes=[2], keepdims=0),
        helper.make_node("Transpose", ["v2"], ["x"], perm=[0, 2, 1]),
        helper.make_node("Softmax", ["x"], ["y"], axis=2),
        helper.make_node("Gather", ["y", "first"], ["z"], axis=1),
        helper.make_node("Shape", ["z"], ["shape"]),
        helper.make_node("Unsqueeze", ["z", "two"], ["o"]),
        helper.make_node("Squeeze", ["o", "two"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["out"]),
    ]  # fmt: skip
    nodes.insert(5, helper.make_node("Cast", ["two"], ["two_f"], to=TensorProto.FLOAT))
    path = onnx_file(tmp_path / "many.onnx", nodes, ("out", [0, 8]))
    image = torch.rand(2, 3, 32, 32)
    (expected,) = runtime.InferenceSession(str(path)).run(None, {"image": image.numpy()})
    assert np.allclose(load_recogniser(str(path)).answers(image).numpy(), expected, atol=1e-5)


def test_error_names_unknown_operators(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Hardmax", ["image"], ["t"]),
        helper.make_node("Relu", ["t"], ["out"]),
    ]
    path = onnx_file(tmp_path / "t.onnx", nodes, ("out", [0, 3, 32, 32]))
    with pytest.raises(
        RecogniserError, match=r"does not support \(Hardmax\); use .* module:function"
    ):
        load_recogniser(str(path))


def test_file_that_is_not_a_video_raises(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(RecogniserError, match="not a readable ONNX file"):
        load_recogniser(str(tmp_path / "no.onnx"))
    with pytest.raises(MissingFileError, match=r"recogniser .*gone\.onnx does not exist"):
        load_recogniser(str(tmp_path / "gone.onnx"))
