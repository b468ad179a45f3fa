"""ONNX Runtime: opens ONNX files on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vrdir.errors import WeightsError, first_line
from vrdir.export.backends import BACKENDS
from vrdir.export.contract import FACTS_KEY, INPUT, OUTPUTS, OpenedNetwork, Pixels, check_values
from vrdir.export.onnx_values import initializers
from vrdir.regular_files import refuse_pointer


def open_network(path: Path) -> OpenedNetwork:
    """Open an exported network.

    Raises:
        WeightsError: the file is not an ONNX file, is damaged, or has values that are not finite.
    """
    session = onnx_session(BACKENDS["onnx"].runtime(), path, "; export it again")
    check_values(path, initializers(path))

    def run(image: Pixels) -> tuple[Pixels, Pixels]:
        restored, shares = session.run(OUTPUTS, {INPUT: image})
        return restored, shares

    return OpenedNetwork(run, session.get_modelmeta().custom_metadata_map.get(FACTS_KEY))


def onnx_session(onnxruntime: Any, path: Path, remedy: str = "") -> Any:
    """Open an ONNX file on the CPU, with as many threads as torch has.

    Args:
        onnxruntime: the package.
        path: the file.
        remedy: the end of the error message.

    Raises:
        WeightsError: the file cannot be opened.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":
        # Its threads then sleep while they wait, like torch's.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    refuse_pointer(path, WeightsError)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented errors
        raise WeightsError(
            f"{path} is not an ONNX file that onnxruntime can open ({first_line(error)}){remedy}"
        ) from None
