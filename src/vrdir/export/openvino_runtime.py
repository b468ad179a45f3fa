"""OpenVINO: opens ONNX files and its own format on the CPU, and writes its own format."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from vrdir.errors import WeightsError
from vrdir.export.backends import BACKENDS
from vrdir.export.contract import FACTS_KEY, INPUT, OUTPUTS, OpenedNetwork, Pixels, check_values
from vrdir.regular_files import refuse_pointer


def open_network(path: Path) -> OpenedNetwork:
    """Open an exported network.

    Raises:
        WeightsError: OpenVINO cannot open the file, or it has values that are not finite.
    """
    core = openvino_core()
    for file in (path, path.with_suffix(".bin")):
        refuse_pointer(file, WeightsError)
    try:
        network = core.read_model(path)
    except Exception as error:  # also of its messages, which may not be UTF-8
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{path} is not a network that openvino can open ({reason}); export it again"
        ) from None
    constants = (op for op in network.get_ops() if op.get_type_name() == "Constant")
    check_values(
        path,
        ((op.get_friendly_name(), op.data) for op in constants if op.get_element_type().is_real()),
    )
    key = ["framework", FACTS_KEY]  # of an ONNX file's metadata, in OpenVINO's own format, too
    facts = network.get_rt_info(key).value if network.has_rt_info(key) else None
    # The default is bfloat16 where the processor has it, which breaks the Fourier transform.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = core.compile_model(network, "CPU", settings)

    def run(image: Pixels) -> tuple[Pixels, Pixels]:
        # A separate request for every call: threads cannot share one.
        results = compiled.create_infer_request().infer({INPUT: image})
        restored, shares = (results[name] for name in OUTPUTS)
        return restored, shares

    return OpenedNetwork(run, facts)


def convert(onnx_path: Path, target: Path) -> None:
    """Write a network in OpenVINO's format: `target` (.xml), and the values beside it (.bin)."""
    openvino = BACKENDS["openvino"].runtime()
    openvino.save_model(openvino_core().read_model(onnx_path), target, compress_to_fp16=False)


def openvino_core() -> Any:
    """Return OpenVINO's `Core`, one for the whole process, kept until the process ends.

    OpenVINO's CPU device gives the thread that loads it a stack for signals. When the last of
    several cores is deleted, that stack is freed while the thread still uses it, and the next
    signal that Python handles (an interrupt, a child that ends) crashes the process.

    Raises:
        MissingPackageError: OpenVINO is not installed.
    """
    return _core_of(BACKENDS["openvino"].runtime())


@cache
def _core_of(openvino: ModuleType) -> Any:
    return openvino.Core()
