"""`vrdir info`."""

from __future__ import annotations

import json
import sys
from typing import Any

from vrdir.cli.console import AsJson, escape, out


def info(as_json: AsJson = False) -> None:
    """Versions, devices, threads: what a bug report needs."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from vrdir import __version__
    from vrdir.weights.bundled import bundled_weights

    facts: dict[str, Any] = {
        "vrdir": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for package in (
        "torch",
        "numpy",
        "pillow",
        "safetensors",
        "pydantic",
        "scikit-image",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "openvino",
    ):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    facts["threads"] = torch.get_num_threads()
    facts["devices"] = ["cpu"] + [
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    ]
    facts["weights"] = list(bundled_weights())
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for key, value in facts.items():
        out.print(escape(f"{key:<14} {', '.join(value) if isinstance(value, list) else value}"))
