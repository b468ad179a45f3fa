"""Packages that the tests of the front-end use where they are installed."""

import importlib
from types import ModuleType

import pytest


def import_or_skip(name: str) -> ModuleType:
    """Import a package, or skip the test for whatever error that causes.

    torchvision raises other errors than ImportError beside a torch without CUDA.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name}: {error}")
