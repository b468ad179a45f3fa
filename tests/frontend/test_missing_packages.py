"""Names that need a package that is not installed raise an error with the command to install it."""

import sys

import pytest

import vrdir.frontend
from vrdir.errors import MissingPackageError


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("AlbumentationsRestore", "albumentations"),
        ("VRDIRArchitecture", "spandrel"),
        ("save_one_file", "spandrel"),
    ],
)
def test_missing_package_raises(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # so that importing it fails
    monkeypatch.delitem(sys.modules, f"vrdir.frontend.{package}", raising=False)
    monkeypatch.delitem(vars(vrdir.frontend), name, raising=False)
    with pytest.raises(MissingPackageError, match=rf"pip install {package}"):
        getattr(vrdir.frontend, name)
