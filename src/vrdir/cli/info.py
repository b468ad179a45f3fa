"""`vrdir info`."""

from __future__ import annotations

from typing import Any

from vrdir.cli.console import escape, out
from vrdir.cli.json_output import print_json
from vrdir.cli.options import AsJson
from vrdir.export.backends import BACKENDS

PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "safetensors",
    "pydantic",
    "scikit-image",
    "onnx",
    "onnxscript",
    *(backend.package for backend in BACKENDS.values()),
)


def info(as_json: AsJson = False) -> None:
    """Print versions, devices and threads, for a bug report."""
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
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    facts["threads"] = torch.get_num_threads()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["devices"] = ["cpu", *gpus]
    facts["weights"] = list(bundled_weights())
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        out.print(escape(f"{key:<14} {', '.join(value) if isinstance(value, list) else value}"))
