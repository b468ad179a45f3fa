"""ExportedModel: a network that was exported to a file, run by ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from vrdir.errors import ImageError, first_line
from vrdir.export.onnx_values import initializers
from vrdir.forks import survive_forks
from vrdir.model.vrdir import (
    Restoration,
    VRDIRConfig,
    check_image,
    check_result,
    clean_threshold,
    describe,
)
from vrdir.regular_files import refuse_pointer

Backend = Literal["torch", "onnx", "openvino"]
Array = np.ndarray[Any, np.dtype[np.float32]]
Run = Callable[[Array], tuple[Array, Array]]

FACTS_KEY = "vrdir"  # in the ONNX file's metadata
SUFFIXES = (".onnx", ".xml")
INPUT, OUTPUTS = "image", ("restored", "shares")


class ExportFacts(BaseModel):
    """What travels inside an exported file, as JSON.

    Attributes:
        vrdir: the version that exported it.
        weights_sha256: of the network's values (see `vrdir.export.export.state_sha256`), not of a file.
        config: the network's shape.
        size: (H, W), the only one that it takes, one image at a time; None: any, and batches.
    """

    model_config = ConfigDict(frozen=True)

    vrdir: str
    weights_sha256: str
    config: VRDIRConfig
    size: tuple[int, int] | None = None


class _Opened(NamedTuple):
    """A file in its runtime: how to run it, (B, 3, H, W) -> restored and shares, and the facts it carries."""

    run: Run
    facts: str | None


class ExportedModel:
    """An exported network that restores as `VRDIR.restore` does. It runs on the CPU, with as many threads as PyTorch has here.

    It keeps nothing about an image, so threads may share one. It can be pickled; its file is then opened again.

    Args:
        path: a file that `vrdir export` wrote: .onnx, or for OpenVINO also .xml with its .bin beside it.
        backend: "onnx" for ONNX Runtime, or "openvino", which reads both.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds values that are not finite, is no exported network, or the runtime is not installed.
    """

    def __init__(self, path: Path | str, backend: Backend) -> None:
        if backend not in _OPENERS:
            raise ValueError(
                f"an exported network runs with backend {' or '.join(_OPENERS)}, not {backend!r}"
            )
        survive_forks()
        self.path, self.backend = Path(path), backend
        if not self.path.is_file():
            raise FileNotFoundError(f"no exported network at {path}; write one with vrdir export")
        opened = _OPENERS[backend](self.path)
        if opened.facts is None:
            raise ValueError(
                f"{path} was not written by vrdir export: it does not carry the network's config"
            )
        try:
            self.facts = ExportFacts.model_validate_json(opened.facts)
        except ValidationError as error:
            raise ValueError(
                f"{path} carries a config that this version cannot read ({describe(error)}); export it again"
            ) from None
        self._run = opened.run

    @property
    def config(self) -> VRDIRConfig:
        return self.facts.config

    def restore(self, image: Tensor, skip_clean: bool | float = False) -> Restoration:
        """Restore and say why, as `VRDIR.restore`, without gradients and without guidance maps, which the file does not give out.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            skip_clean: as there, with the same result but not in less time: the graph has no branches.

        Returns:
            On the CPU; `guidance` is empty.

        Raises:
            ImageError: the file takes another size alone.
        """
        check_image(image)
        if self.facts.size is not None and image.shape[-2:] != self.facts.size:
            own, given = (
                " x ".join(map(str, size)) for size in (self.facts.size, image.shape[-2:])
            )
            raise ImageError(
                f"{self.path} takes images of {own} pixels (height x width) alone, not {given}; export it without a size"
            )
        threshold = clean_threshold(skip_clean, self.config)
        image = image.detach().cpu().contiguous()
        pieces = [image] if self.facts.size is None else image.split(1)
        results = [self._run(piece.numpy()) for piece in pieces]
        restored, shares = (
            torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*results, strict=True)
        )
        check_result(restored, shares)
        if threshold is not None:
            restored = torch.where((shares[:, -1] < threshold).view(-1, 1, 1, 1), restored, image)
        return Restoration(restored, [], shares)

    def __reduce__(self) -> tuple[Any, ...]:
        return ExportedModel, (self.path, self.backend)


def runtime_of(backend: Backend) -> Any:
    """The package that runs a backend's files. Raises ValueError if it is not installed."""
    package, extra = {"onnx": ("onnxruntime", "export"), "openvino": ("openvino", "openvino")}[
        backend
    ]
    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise ValueError(
            f"backend {backend} needs {package}: pip install 'vrdir[{extra}]'"
        ) from None


def openvino_core() -> Any:
    """OpenVINO's `Core`, one for the whole process and kept to its end. Raises ValueError if OpenVINO is not installed.

    Its CPU device gives the thread that loads it a stack for signals of its own. When the last of several cores goes, that stack
    goes too while the thread still has it, and the next signal that Python handles (an interrupt, a finished child) is a crash.
    """
    return _core_of(runtime_of("openvino"))


@cache
def _core_of(openvino: ModuleType) -> Any:
    return openvino.Core()


def onnx_session(onnxruntime: Any, path: Path, remedy: str = "") -> Any:
    """A file opened for the CPU, on as many threads as torch has. Raises ValueError, with a remedy, if it cannot be opened."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    refuse_pointer(path)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented ones
        raise ValueError(
            f"{path} is no ONNX file that onnxruntime can open ({first_line(error)}){remedy}"
        ) from None


def _open_onnx(path: Path) -> _Opened:
    onnxruntime = runtime_of("onnx")
    if path.suffix == ".xml":
        raise ValueError(f"{path} is OpenVINO's format; open it with backend openvino")
    session = onnx_session(onnxruntime, path, "; export it again")
    _check_values(path, initializers(path))

    def run(image: Array) -> tuple[Array, Array]:
        restored, shares = session.run(OUTPUTS, {INPUT: image})
        return restored, shares

    return _Opened(run, session.get_modelmeta().custom_metadata_map.get(FACTS_KEY))


def _open_openvino(path: Path) -> _Opened:
    core = openvino_core()
    for file in (path, path.with_suffix(".bin")):
        refuse_pointer(file)
    try:
        network = core.read_model(path)
    except RuntimeError as error:
        raise ValueError(
            f"{path} is no network that openvino can open ({' '.join(str(error).split())}); export it again"
        ) from None
    constants = (op for op in network.get_ops() if op.get_type_name() == "Constant")
    _check_values(
        path,
        ((op.get_friendly_name(), op.data) for op in constants if op.get_element_type().is_real()),
    )
    place = [
        "framework",
        FACTS_KEY,
    ]  # where it keeps an ONNX file's metadata, in its own format too
    facts = network.get_rt_info(place).value if network.has_rt_info(place) else None
    # bfloat16, its default where the processor has it, breaks the Fourier part.
    compiled = core.compile_model(
        network,
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()},
    )

    def run(image: Array) -> tuple[Array, Array]:
        # A request of its own for every call: threads may not share one.
        results = compiled.create_infer_request().infer({INPUT: image})
        restored, shares = (results[name] for name in OUTPUTS)
        return restored, shares

    return _Opened(run, facts)


def _check_values(path: Path, constants: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> None:
    """Raise ValueError, naming the tensor, if one of a file's holds a value that is no finite number."""
    for name, values in constants:
        if not np.isfinite(values).all():
            raise ValueError(f"{path} has NaN or infinite values in {name}; export it again")


_OPENERS: dict[str, Callable[[Path], _Opened]] = {"onnx": _open_onnx, "openvino": _open_openvino}
