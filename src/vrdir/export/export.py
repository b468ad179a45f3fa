"""Exporting a network to ONNX and OpenVINO, and comparing what was written with PyTorch before it is kept."""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vrdir import __version__
from vrdir.export.graph import ExportableVRDIR
from vrdir.export.nodes import halve_convolutions, name_readably
from vrdir.export.runtimes import (
    FACTS_KEY,
    INPUT,
    OUTPUTS,
    SUFFIXES,
    Backend,
    ExportedModel,
    ExportFacts,
    openvino_core,
    runtime_of,
)
from vrdir.model.loading import check_finite
from vrdir.model.vrdir import VRDIR
from vrdir.tensors import pad_to_multiple

logger = logging.getLogger(__name__)

TOLERANCE = (
    1e-4  # of pixels in [0, 1] and of shares; bundled weights come within 1e-5, up to 1024 x 1024
)
HALF_TOLERANCE = 1e-2  # of those whose convolutions compute in float16
OPSET = 18
CHECK_SIZES = (
    (1, 1, 1),
    (1, 1, 40),
    (2, 45, 70),
    (3, 64, 64),
    (1, 255, 161),
    (1, 384, 512),
)  # B, H, W


def export(
    model: VRDIR,
    path: Path,
    backend: Backend,
    sizes: Sequence[tuple[int, int, int]] = CHECK_SIZES,
    tolerance: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    opset: int = OPSET,
    half: bool = False,
) -> dict[tuple[int, int, int], float]:
    """Write a network to a file that its runtime needs nothing else for, if it computes there what it computes in PyTorch.

    Batch, height and width stay free, unless a size is given. The file takes `image` (B, 3, H, W), float32 RGB in [0, 1], and
    gives `restored`, the same shape, and `shares` (B, K).

    Args:
        model: the network; it is copied.
        path: .onnx, one file; or .xml, OpenVINO's format, which comes with a .bin of the same name beside it.
        backend: what runs it for the comparison, "onnx" or "openvino".
        sizes: what to compare on, each (B, H, W); with `size` that alone.
        tolerance: the largest difference allowed, of pixels in [0, 1] and of shares; None: `TOLERANCE`, of `half` `HALF_TOLERANCE`.
        size: (H, W), the only one that the file is to take, one image at a time: OpenCV and TensorRT want it so.
        opset: of ONNX, by which runtimes say what they know.
        half: convolutions compute in float16, their weights are kept in it, and all else stays float32, inputs and outputs too.

    Returns:
        The largest difference for each size.

    Raises:
        ArithmeticError: a difference is larger than `tolerance`. Then, as with any other error, no file is left.
        ValueError: a package is not installed, the suffix is another, the exporter knows no such opset, or a value of the
            network is not finite.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"an exported network's file ends in {' or '.join(SUFFIXES)}, not as {path.name} does"
        )
    check_finite(model.state_dict(), "the network")
    runtime_of(backend)  # now, not after the export
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        _write_onnx(model, written.with_suffix(".onnx"), size, opset, half)
        if path.suffix == ".xml":
            _convert_to_openvino(written.with_suffix(".onnx"), written)
        tolerance = (HALF_TOLERANCE if half else TOLERANCE) if tolerance is None else tolerance
        errors = compare(
            model, ExportedModel(written, backend), sizes if size is None else [(1, *size)]
        )
        beyond = [error for error in errors.values() if not error <= tolerance]  # NaN too
        if beyond:
            raise ArithmeticError(
                f"{path} was not kept: in {backend} it differs from PyTorch by up to {max(beyond):.1e}, allowed is {tolerance:.0e}"
            )
        if path.suffix == ".xml":
            written.with_suffix(".bin").replace(path.with_suffix(".bin"))
        written.replace(path)
    return errors


def compare(
    model: VRDIR, exported: ExportedModel, sizes: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int, int], float]:
    """The largest difference between two, of pixels and shares, on images of each size (B, H, W): a ramp under half noise.

    NaN where one of them gives NaN.
    """
    reference = (
        copy.deepcopy(model).cpu().eval()
    )  # not as it is on a GPU, which may compute in less than float32
    generator = torch.Generator().manual_seed(0)
    errors = {}
    for batch, height, width in sizes:
        ramp = torch.linspace(0, 1, width).expand(batch, 3, height, width)
        image = (ramp + torch.rand(ramp.shape, generator=generator)) / 2
        with torch.no_grad():
            expected, actual = reference.restore(image), exported.restore(image)
        differences = (expected.image - actual.image, expected.shares - actual.shares)
        errors[batch, height, width] = float(
            torch.stack([difference.abs().max() for difference in differences]).max()
        )
    return errors


def cached_export(model: VRDIR, backend: Backend) -> Path:
    """The network as an ONNX file in the user's cache folder, exported and compared when it is first asked for.

    The folder is `vrdir` below XDG_CACHE_HOME, by default ~/.cache; its files may be deleted at any time.

    Raises:
        ValueError: it cannot be written there, or a package is not installed.
        ArithmeticError: see `export`.
    """
    path = cache_path(model, backend)
    if not path.is_file():
        logger.info("exporting the network for backend %s into %s, once", backend, path)
        try:
            export(model, path, backend, sizes=CHECK_SIZES[:3])
        except OSError as error:
            raise ValueError(
                f"the exported network cannot be kept in {path.parent} ({error.strerror}); set XDG_CACHE_HOME, or export it to a file"
            ) from None
    return path


def cache_path(model: VRDIR, backend: Backend) -> Path:
    """Where `cached_export` keeps a network: under a name of its values, its config, and the code and PyTorch that export it."""
    code = [
        *sorted(Path(inspect.getfile(VRDIR)).parent.glob("*.py")),
        Path(__file__).with_name("graph.py"),
        Path(inspect.getfile(pad_to_multiple)),
    ]
    versions = [
        __version__,
        torch.__version__,
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in code),
    ]
    key = hashlib.sha256(
        "\n".join([state_sha256(model), model.config.model_dump_json(), *versions]).encode()
    ).hexdigest()
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "vrdir"
        / f"{key[:32]}-{backend}.onnx"
    )


def state_sha256(model: VRDIR) -> str:
    """SHA-256 of a network's values, by name: the same wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_onnx(
    model: VRDIR, path: Path, size: tuple[int, int] | None, opset: int, half: bool
) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ModuleNotFoundError as error:
        raise ValueError(f"exporting needs {error.name}: pip install 'vrdir[export]'") from None
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            ExportableVRDIR(model),
            (torch.rand(2, 3, 45, 70) if size is None else torch.rand(1, 3, *size),),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: "batch", 2: "height", 3: "width"}} if size is None else None,
        )
    assert program is not None  # it is of dynamo's exporter
    proto: Any = program.model_proto
    written = next(one.version for one in proto.opset_import if not one.domain)
    if written != opset:
        raise ValueError(f"the exporter cannot write opset {opset}, only {written}; choose another")
    name_readably(proto.graph)
    if half:
        halve_convolutions(proto.graph)
    _tidy(proto, free=size is None)
    facts = ExportFacts(
        vrdir=__version__, weights_sha256=state_sha256(model), config=model.config, size=size
    )
    onnx.helper.set_model_props(proto, {FACTS_KEY: facts.model_dump_json()})
    onnx.checker.check_model(proto)
    onnx.save_model(proto, path)


def _tidy(proto: Any, free: bool) -> None:
    """Leave out what the exporter notes for itself (stack traces with this machine's paths), and name the free sizes plainly."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del proto.graph.value_info[:], proto.graph.metadata_props[:]
    if free:
        restored = proto.graph.output[0].type.tensor_type.shape.dim
        for axis, name in ((2, "height"), (3, "width")):
            restored[axis].dim_param = name


def _convert_to_openvino(source: Path, target: Path) -> None:
    openvino = runtime_of("openvino")
    openvino.save_model(openvino_core().read_model(source), target, compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not needed here."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
