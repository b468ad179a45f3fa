"""Export a network for other runtimes. Its file is kept only if the results are PyTorch's."""

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
from vrdir.errors import InputError, ResultError, require
from vrdir.export.backends import FORMATS, exported_backend
from vrdir.export.contract import FACTS_KEY, INPUT, OUTPUTS
from vrdir.export.exported_model import ExportedModel, ExportFacts
from vrdir.export.graph import ExportableVRDIR
from vrdir.export.nodes import halve_convolutions, name_readably
from vrdir.model.loading import check_finite
from vrdir.model.vrdir import VRDIR
from vrdir.tensors import pad_to_multiple

logger = logging.getLogger(__name__)

# Largest difference allowed, of pixels in [0, 1] and of shares. The bundled weights differ by less
# than 1e-5 up to 1024 x 1024.
TOLERANCE = 1e-4
HALF_TOLERANCE = 1e-2  # where convolutions compute in float16
OPSET = 18
# B, H, W
CHECK_SIZES = (
    (1, 1, 1),
    (1, 1, 40),
    (2, 45, 70),
    (3, 64, 64),
    (1, 255, 161),
    (1, 384, 512),
)


def export(
    model: VRDIR,
    path: Path,
    backend: str,
    sizes: Sequence[tuple[int, int, int]] = CHECK_SIZES,
    tolerance: float | None = None,
    *,
    size: tuple[int, int] | None = None,
    opset: int = OPSET,
    half: bool = False,
) -> dict[tuple[int, int, int], float]:
    """Write a network to a file, and keep the file only if its results are those of PyTorch.

    Batch, height and width stay free, unless a size is given. The file takes `image`
    (B, 3, H, W), float32 RGB in [0, 1], and returns `restored` of the same shape and `shares`
    (B, K).

    Args:
        model: the network; it is copied.
        path: a file whose suffix names the format: .onnx, one file; or .xml, OpenVINO's format,
            with a .bin of the same name beside it (`vrdir.export.backends`).
        backend: the runtime that the result is compared in, such as "onnx" or "openvino".
        sizes: the sizes to compare, each (B, H, W); not used with `size`.
        tolerance: the largest difference allowed, of pixels in [0, 1] and of shares. None: 1e-4,
            or 1e-2 with `half`.
        size: (H, W) if the file accepts images of this size only, one at a time, as OpenCV and
            TensorRT need it.
        opset: the ONNX opset. A runtime knows opsets up to some number.
        half: convolutions compute in float16 with weights in float16; all else stays float32,
            inputs and outputs, too.

    Returns:
        The largest difference for each size.

    Raises:
        ResultError: a difference is larger than `tolerance`. After this or any other error there is
            no file.
        InputError: the suffix or the backend is unknown, or the exporter cannot write the opset.
        WeightsError: a value of the network is not finite.
        MissingPackageError: a package is not installed.
    """
    if path.suffix not in FORMATS:
        raise InputError(
            f"the file of an exported network must end in {' or '.join(FORMATS)}, unlike "
            f"{path.name}"
        )
    check_finite(model.state_dict(), "the network")
    exported_backend(backend).runtime()  # fails now, not after the export
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        onnx_path = written.with_suffix(".onnx")
        _write_onnx(model, onnx_path, size, opset, half)
        if written != onnx_path:
            FORMATS[path.suffix].export(onnx_path, written)
        errors = compare(
            model, ExportedModel(written, backend), sizes if size is None else [(1, *size)]
        )
        if tolerance is None:
            tolerance = HALF_TOLERANCE if half else TOLERANCE
        _check_errors(errors, tolerance, path, backend)
        # The main file last: it is complete only with the others.
        for suffix in reversed(FORMATS[path.suffix].written):
            written.with_suffix(suffix).replace(path.with_suffix(suffix))
    return errors


def _check_errors(
    errors: dict[tuple[int, int, int], float], tolerance: float, path: Path, backend: str
) -> None:
    too_large = [error for error in errors.values() if not error <= tolerance]  # NaN, too
    if too_large:
        raise ResultError(
            f"{path} was discarded: in {backend} it differs from PyTorch by up to "
            f"{max(too_large):.1e}; at most {tolerance:.0e} is allowed"
        )


def compare(
    model: VRDIR, exported: ExportedModel, sizes: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int, int], float]:
    """Return the largest difference of two networks, of pixels and shares, for each size.

    The images are a ramp mixed with noise. A difference is NaN if a result is NaN.

    Args:
        model: in PyTorch. It is copied to the CPU: a GPU may compute with less than float32.
        exported: the same network in another runtime.
        sizes: (B, H, W) each.
    """
    reference = copy.deepcopy(model).cpu().eval()
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


def cached_export(model: VRDIR, backend: str) -> Path:
    """Return the network as an ONNX file in the user's cache folder; export it if it is not there.

    The folder is `vrdir` below XDG_CACHE_HOME, by default ~/.cache. Its files may be deleted at any
    time.

    Raises:
        InputError: the file cannot be written there.
        MissingPackageError: a package is not installed.
        ResultError: as `export` does.
    """
    path = cache_path(model, backend)
    if not path.is_file():
        logger.info("exporting the network for backend %s into %s, once", backend, path)
        try:
            export(model, path, backend, sizes=CHECK_SIZES[:3])
        except OSError as error:
            raise InputError(
                f"the exported network cannot be stored in {path.parent} ({error.strerror}); "
                "set XDG_CACHE_HOME, or export it to a file"
            ) from None
    return path


def cache_path(model: VRDIR, backend: str) -> Path:
    """Return where `cached_export` keeps a network.

    The name depends on the network's values, its config, and the code and PyTorch that export it.
    """
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
    parts = [state_sha256(model), model.config.model_dump_json(), *versions]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "vrdir" / f"{key[:32]}-{backend}.onnx"


def state_sha256(model: VRDIR) -> str:
    """Return the SHA-256 of a network's values and their names, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write_onnx(
    model: VRDIR, path: Path, size: tuple[int, int] | None, opset: int, half: bool
) -> None:
    onnx = require("onnx", "export", "exporting needs onnx")
    require("onnxscript", "export", "exporting needs onnxscript")  # PyTorch's exporter uses it
    with torch.no_grad(), quiet():
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
    assert program is not None  # with dynamo
    proto: Any = program.model_proto
    written = next(one.version for one in proto.opset_import if not one.domain)
    if written != opset:
        raise InputError(f"the exporter cannot write opset {opset}, only {written}; choose another")
    name_readably(proto.graph)
    if half:
        halve_convolutions(proto.graph)
    tidy(proto, free=size is None)
    facts = ExportFacts(
        vrdir=__version__, weights_sha256=state_sha256(model), config=model.config, size=size
    )

    onnx.helper.set_model_props(proto, {FACTS_KEY: facts.model_dump_json()})
    onnx.checker.check_model(proto)
    onnx.save_model(proto, path)


def tidy(proto: Any, free: bool) -> None:
    """Remove the exporter's notes, such as stack traces with paths, and name the free sizes."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del proto.graph.value_info[:], proto.graph.metadata_props[:]
    if free:
        restored = proto.graph.output[0].type.tensor_type.shape.dim
        for axis, name in ((2, "height"), (3, "width")):
            restored[axis].dim_param = name


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the exporter's remarks about packages that are not needed here."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
