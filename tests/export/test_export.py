"""Exported networks: real files, run by ONNX Runtime and OpenVINO, compared with PyTorch."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import IDENTITY_ONNX, LFS_POINTER, TINY

import vrdir
from vrdir import ImageError, Restorer
from vrdir.errors import WeightsError
from vrdir.export.backends import BACKEND_NAMES, BACKENDS, FORMATS
from vrdir.export.exported_model import ExportedModel
from vrdir.export.exporting import cache_path, compare, export, state_sha256
from vrdir.model.config import PAPER
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.golden import golden_problems
from vrdir.weights import bundled

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
for backend in BACKENDS.values():
    pytest.importorskip(backend.package)

# Every backend, with each kind of file that it runs.
FILES = [(f"tiny{suffix}", each.name) for each in BACKENDS.values() for suffix in each.suffixes]


@pytest.fixture(scope="module")
def network() -> VRDIR:
    """As `tiny`, with guidance that depends on the image."""
    torch.manual_seed(0)
    model = VRDIR(TINY).eval()
    with torch.no_grad():
        for parameter in [*model.decoder.parameters(), *model.enhancement.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
        for parameter in model.extractor.parameters():
            # With fresh weights the image would fade away.
            parameter.mul_(2.5 if parameter.ndim == 4 else 1)
        for ise in model.scales:
            ise.modulation.guidance.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def folder(network: VRDIR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in all formats, moved after it was written."""
    folder = tmp_path_factory.mktemp("exported")
    export(network, folder / "first" / "tiny.onnx", "onnx")
    for suffix, backend in FORMATS.items():
        if suffix != ".onnx":
            path = folder / "first" / f"tiny{suffix}"
            export(network, path, backend.name, sizes=[(1, 9, 9)])
    written = {suffix for backend in BACKENDS.values() for suffix in backend.written}
    assert {path.name for path in (folder / "first").iterdir()} == {f"tiny{one}" for one in written}
    return (folder / "first").rename(folder / "moved here")


@pytest.fixture(params=FILES, ids=[f"{name} in {backend}" for name, backend in FILES])
def exported(folder: Path, request: pytest.FixtureRequest) -> ExportedModel:
    name, backend = request.param
    return ExportedModel(folder / name, backend)


def test_single_size_in_another_opset(network: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "static.onnx"
    errors = export(network, path, "onnx", size=(45, 70), opset=20)
    assert list(errors) == [(1, 45, 70)]
    proto = onnx.load(path)
    assert [one.version for one in proto.opset_import if not one.domain] == [20]
    for value, shape in (
        (proto.graph.input[0], [1, 3, 45, 70]),
        (proto.graph.output[0], [1, 3, 45, 70]),
    ):
        assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == shape
    shapes = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero"}
    assert not shapes & {
        node.op_type for node in proto.graph.node
    }  # nothing is left to be found out
    assert "decoder.to_correction.weight" in {one.name for one in proto.graph.initializer}
    restorer, eager = Restorer.from_onnx(path), Restorer(network, "cpu")
    fits = photo.crop((0, 0, 70, 45))
    assert np.abs(np.asarray(restorer(fits), int) - np.asarray(eager(fits), int)).max() <= 1
    batch = torch.rand(3, 3, 45, 70)
    torch.testing.assert_close(restorer(batch), eager(batch), atol=1e-4, rtol=0)
    with pytest.raises(
        ImageError, match=r"accepts only images of 45 x 70 pixels \(height x width\), not 75 x 97"
    ):
        restorer(photo)
    with pytest.raises(ValueError, match="opset 7"):
        export(network, tmp_path / "old.onnx", "onnx", size=(9, 9), opset=7)
    assert [one.name for one in tmp_path.iterdir()] == ["static.onnx"]


def test_nodes_have_readable_names(folder: Path) -> None:
    graph = onnx.load(folder / "tiny.onnx").graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    for expected in (
        "extractor.stem/Conv",
        "decoder.to_correction/Conv",
        "enhancement.stride4.modulation.guidance/Conv",
    ):
        assert expected in names
    assert {node.name.split("/")[0] for node in graph.node if node.op_type == "Conv"} == {
        value.removesuffix(".weight")
        for node in graph.node
        if node.op_type == "Conv"
        for value in node.input[1:2]
    }


def test_convolutions_in_float16(
    network: VRDIR, folder: Path, photo: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "half.onnx"
    errors = export(network, path, "onnx", sizes=[(1, 45, 70)], half=True)
    assert 0 < max(errors.values()) < 1e-2
    assert path.stat().st_size < 0.8 * (folder / "tiny.onnx").stat().st_size
    graph = onnx.load(path).graph
    types = {one.name: one.data_type for one in graph.initializer}
    halves = {
        node.name: types[node.input[1]] == onnx.TensorProto.FLOAT16
        for node in graph.node
        if node.op_type == "Conv"
    }
    assert all(half == ("modulation" not in name) for name, half in halves.items())
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [
        onnx.TensorProto.FLOAT
    ] * 3
    found, expected = Restorer.from_onnx(path)(photo), Restorer(network, "cpu")(photo)
    # The weights are random, so errors grow.
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).mean() < 1
    with pytest.raises(ArithmeticError, match="at most 1e-07 is allowed"):
        export(
            network, tmp_path / "exact.onnx", "onnx", sizes=[(1, 45, 70)], half=True, tolerance=1e-7
        )


def test_any_batch_height_and_width(network: VRDIR, exported: ExportedModel) -> None:
    sizes = [
        (1, 1, 1),
        (2, 1, 1),
        (1, 1, 57),
        (3, 40, 1),
        (1, 7, 9),
        (2, 8, 8),
        (1, 16, 31),
        (5, 45, 70),
        (1, 130, 257),
    ]
    errors = compare(network, exported, sizes)
    assert list(errors) == sizes
    assert max(errors.values()) < 2e-5, errors


def test_comparison_finds_nan(network: VRDIR, exported: ExportedModel) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.enhancement.parameters()).fill_(torch.nan)
    (error,) = compare(broken, exported, [(1, 20, 20)]).values()
    assert np.isnan(error)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_images_are_restored(network: VRDIR, exported: ExportedModel, value: float) -> None:
    # Most of the spectrum is rounding errors, whose phase is used, too.
    image = torch.full((1, 3, 90, 120), value)
    with torch.no_grad():
        torch.testing.assert_close(
            exported.restore(image).image, network.restore(image).image, atol=1e-4, rtol=0
        )


def test_file_contains_its_facts_and_no_local_paths(
    network: VRDIR, folder: Path, exported: ExportedModel
) -> None:
    assert exported.config == network.config
    assert exported.facts.vrdir == vrdir.__version__
    assert exported.facts.weights_sha256 == state_sha256(network)
    for path in folder.iterdir():
        content = path.read_bytes()
        for package in (vrdir, torch):
            assert str(Path(str(package.__file__)).parent).encode() not in content


def test_onnx_file_is_plain_onnx_with_free_sizes(folder: Path) -> None:
    proto = onnx.load(folder / "tiny.onnx")
    onnx.checker.check_model(proto, full_check=True)
    (image,), (restored, shares) = proto.graph.input, proto.graph.output

    def dimensions(value: Any) -> list[Any]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert (image.name, dimensions(image)) == ("image", ["batch", 3, "height", "width"])
    assert (restored.name, dimensions(restored)) == ("restored", ["batch", 3, "height", "width"])
    assert (shares.name, dimensions(shares)) == ("shares", ["batch", 4])
    assert {opset.domain for opset in proto.opset_import} == {""}


def test_restorer_gives_the_same_results_on_every_backend(
    network: VRDIR, folder: Path, photo: Image.Image, photo_batch: torch.Tensor
) -> None:
    expected = Restorer(network, "cpu")
    restorers = [
        Restorer.from_onnx(folder / "tiny.onnx"),
        Restorer.from_onnx(f"{folder}/tiny.onnx"),
    ]
    restorers += [Restorer(folder / name, backend=backend) for name, backend in FILES]
    for restorer in restorers:
        for image in (photo, photo.convert("L"), photo.convert("RGBA"), np.asarray(photo)):
            ours, theirs = (
                np.asarray(restorer(image)).astype(int),
                np.asarray(expected(image)).astype(int),
            )
            assert np.abs(ours - theirs).max() <= 1  # for a value between two levels
            assert not np.array_equal(ours, np.asarray(image))
        ours, theirs = restorer.restore(photo_batch), expected.restore(photo_batch)
        torch.testing.assert_close(ours.image, theirs.image, atol=1e-4, rtol=0)
        for mine, other in zip(ours.shares, theirs.shares, strict=True):
            assert mine == pytest.approx(other, abs=1e-4)


def test_clean_images_are_unchanged_as_in_pytorch(
    network: VRDIR, exported: ExportedModel, photo_batch: torch.Tensor
) -> None:
    batch = torch.stack(
        [
            photo_batch[0],
            torch.rand(photo_batch[0].shape, generator=torch.Generator().manual_seed(0)),
        ]
    )
    with torch.no_grad():
        shares = network.restore(batch).shares[:, -1]
        assert abs(float(shares[0] - shares[1])) > 0.05
        threshold = float(shares.mean())  # one of the two counts as clean
        expected, found = network.restore(batch, threshold), exported.restore(batch, threshold)
    torch.testing.assert_close(found.image, expected.image, atol=1e-4, rtol=0)
    clean = int(shares.argmax())
    assert torch.equal(found.image[clean], batch[clean])
    assert not torch.equal(found.image[1 - clean], batch[1 - clean])


def test_threads_may_share_an_exported_network(
    exported: ExportedModel, photo_batch: torch.Tensor
) -> None:
    images = [photo_batch[:1, :, : 20 + 5 * i] for i in range(6)]
    expected = [exported.restore(image).image for image in images]
    found: dict[tuple[int, int], torch.Tensor] = {}

    def work(i: int) -> None:
        for turn in range(4):
            found[i, turn] = exported.restore(images[i]).image

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 24
    for (i, _), image in found.items():
        torch.testing.assert_close(image, expected[i], atol=1e-6, rtol=0)


def test_transform_can_be_pickled_twice(exported: ExportedModel, photo_batch: torch.Tensor) -> None:
    there = pickle.loads(pickle.dumps(exported))
    assert torch.equal(there.restore(photo_batch).image, exported.restore(photo_batch).image)


FORK = """
import multiprocessing, sys, torch
from vrdir.export.exported_model import ExportedModel
torch.set_num_threads(3)
image = torch.rand(1, 3, 120, 160)
for path, backend in zip(sys.argv[1::2], sys.argv[2::2]):
    exported = ExportedModel(path, backend)
    expected = exported.restore(image).image

    def work(number):
        return float((exported.restore(image).image - expected).abs().max())

    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert max(pool.map_async(work, range(4)).get(150)) < 1e-5, backend
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_forked_processes_compute(folder: Path) -> None:
    files = [str(part) for name, backend in FILES for part in (folder / name, backend)]
    subprocess.run([sys.executable, "-c", FORK, *files], check=True, timeout=500)


def test_invalid_images_raise(exported: ExportedModel) -> None:
    with pytest.raises(ValueError, match=r"expected an RGB tensor .* got shape \(3, 8, 8\)"):
        exported.restore(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="True, False or a share"):
        exported.restore(torch.rand(1, 3, 8, 8), skip_clean=2.0)


def test_papers_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    errors = export(VRDIR(PAPER), tmp_path / "paper.onnx", "onnx", sizes=[(1, 1, 1), (2, 21, 34)])
    assert max(errors.values()) < 1e-5
    with pytest.raises(ValueError, match="needs a network with a clean branch"):
        Restorer.from_onnx(tmp_path / "paper.onnx", skip_clean=True)


def test_weights_are_exported_into_the_cache_once(
    weights: Path,
    tiny: VRDIR,
    photo_batch: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = Restorer(weights, "cpu")(photo_batch)
    torch.testing.assert_close(
        Restorer(weights, backend="onnx")(photo_batch), expected, atol=1e-4, rtol=0
    )
    (file,) = (tmp_path / "cache" / "vrdir").iterdir()
    written = file.stat().st_mtime_ns
    torch.testing.assert_close(
        Restorer(tiny, backend="onnx")(photo_batch), expected, atol=1e-4, rtol=0
    )
    assert [(p, p.stat().st_mtime_ns) for p in (tmp_path / "cache" / "vrdir").iterdir()] == [
        (file, written)
    ]
    with torch.no_grad():
        next(tiny.decoder.parameters()).add_(0.01)
    assert cache_path(tiny, "onnx") != file


def test_error_names_unwritable_cache(
    tiny: VRDIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        ValueError, match=r"cannot be stored in .*file/vrdir .*; set XDG_CACHE_HOME"
    ):
        Restorer(tiny, backend="onnx")


def test_foreign_and_damaged_files_are_rejected(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(IDENTITY_ONNX)
    (tmp_path / "cut.onnx").write_bytes((folder / "tiny.onnx").read_bytes()[:5000])
    shutil.copy(folder / "tiny.xml", tmp_path / "alone.xml")
    for backend in BACKENDS:
        with pytest.raises(ValueError, match="other.onnx was not written by vrdir export"):
            Restorer.from_onnx(tmp_path / "other.onnx", backend=backend)
        with pytest.raises(ValueError, match=r"cut.onnx is not an? .* can open .*; export it"):
            Restorer.from_onnx(tmp_path / "cut.onnx", backend=backend)
        with pytest.raises(FileNotFoundError, match="exported network .*none.onnx does not exist"):
            Restorer.from_onnx(tmp_path / "none.onnx", backend=backend)
    with pytest.raises(ValueError, match=r"alone.xml is not a network that openvino can open"):
        Restorer(tmp_path / "alone.xml", backend="openvino")
    damaged = (folder / "tiny.xml").read_bytes().replace(b'"Convolution"', b'"Conv\xfflution"')
    (tmp_path / "bytes.xml").write_bytes(damaged)
    shutil.copy(folder / "tiny.bin", tmp_path / "bytes.bin")
    with pytest.raises(WeightsError, match=r"bytes.xml is not a network that openvino can open"):
        Restorer(tmp_path / "bytes.xml", backend="openvino")
    with pytest.raises(ValueError, match="has OpenVINO's format; use backend openvino"):
        Restorer(folder / "tiny.xml", backend="onnx")
    with pytest.raises(
        ValueError,
        match="tiny.onnx is the name of an exported network; those run with backend onnx or ",
    ):
        Restorer(folder / "tiny.onnx")


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_that_are_not_finite_are_rejected_by_name(
    folder: Path, tmp_path: Path, backend: str, raw: bool
) -> None:
    proto = onnx.load(folder / "tiny.onnx")
    tensor = next(
        tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT
    )
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[-1] = np.nan
    named = onnx.numpy_helper.from_array(values, tensor.name)
    tensor.CopyFrom(
        named
        if raw
        else onnx.helper.make_tensor(tensor.name, 1, values.shape, values.reshape(-1).tolist())
    )
    onnx.save(proto, tmp_path / "nan.onnx")
    with pytest.raises(
        ValueError, match=rf"nan.onnx has NaN or infinite values in {tensor.name}; export it again"
    ):
        Restorer(tmp_path / "nan.onnx", backend=backend)


def test_non_finite_result_raises(folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "tiny.onnx")
    last = next(
        tensor for tensor in proto.graph.initializer if tensor.name.endswith("to_correction.weight")
    )
    last.CopyFrom(onnx.numpy_helper.from_array(np.full(last.dims, 3e38, np.float32), last.name))
    onnx.save(proto, tmp_path / "large.onnx")
    with pytest.raises(ArithmeticError, match="NaN or infinite values"):
        Restorer.from_onnx(tmp_path / "large.onnx")(np.full((20, 20, 3), 0.5, np.float32))


def test_network_with_nan_is_not_exported(network: VRDIR, tmp_path: Path) -> None:
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken.decoder.to_correction.bias[0] = torch.nan
    with pytest.raises(
        ValueError, match="the network has NaN or infinite values in decoder.to_correction.bias"
    ):
        export(broken, tmp_path / "nan.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_error_names_git_lfs_pointer(tmp_path: Path, backend: str) -> None:
    (tmp_path / "a.onnx").write_text(LFS_POINTER)
    with pytest.raises(
        ValueError, match=r"a.onnx is a Git LFS pointer, not the file itself; run: git lfs pull"
    ):
        ExportedModel(tmp_path / "a.onnx", backend)


def test_error_names_git_lfs_pointer_of_openvino_weights(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tiny.xml", tmp_path)
    (tmp_path / "tiny.bin").write_text(LFS_POINTER)
    with pytest.raises(ValueError, match=r"tiny.bin is a Git LFS pointer"):
        ExportedModel(tmp_path / "tiny.xml", "openvino")


def test_impossible_requests_are_reported(tiny: VRDIR, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="backend onnx runs on the CPU, not on 'cuda'"):
        Restorer(tiny, "cuda", backend="onnx")
    unknown: Any = "tensorflow"
    known = " or ".join(BACKEND_NAMES)
    with pytest.raises(ValueError, match=f"backend must be {known}, not 'tensorflow'"):
        Restorer(tiny, backend=unknown)
    with pytest.raises(ValueError, match=f"must end in {' or '.join(FORMATS)}, unlike net.pt"):
        export(tiny, tmp_path / "net.pt", "onnx")
    with pytest.raises(ValueError, match="a front-end needs backend torch"):
        vrdir.restore_before(torch.nn.Identity(), Restorer.from_onnx(folder / "tiny.onnx"))


def test_signals_are_handled_after_networks_were_closed(folder: Path) -> None:
    """Handle a signal after OpenVINO's networks are deleted (see `openvino_core`)."""
    script = f"""
import faulthandler, signal
faulthandler.enable()
from vrdir import Restorer
first, second = (Restorer({str(folder / "tiny.xml")!r}, backend="openvino") for _ in range(2))
del first, second
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "handled\n", (result.returncode, result.stderr)


@pytest.mark.parametrize(
    ("package", "backend", "extra"),
    [
        *[(each.package, each.name, each.extra) for each in BACKENDS.values()],
        ("onnxscript", "onnx", "export"),
    ],
)
def test_error_names_missing_package(
    package: str,
    backend: str,
    extra: str,
    tiny: VRDIR,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{package}: pip install 'vrdir\[{extra}\]'"):
        export(tiny, tmp_path / "net.onnx", backend)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(bundled.bundled_weights()))
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_outputs_in_each_backend(
    name: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert golden_problems(name, backend) == []
