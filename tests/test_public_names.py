"""The names that users import stay the same, and importing the package stays fast."""

import importlib
import pkgutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import vrdir
from vrdir.errors import MissingPackageError

PINNED = Path(__file__).with_name("public_names.txt")


def public_names() -> dict[str, list[str]]:
    """Return the names that the package and its rooms offer."""
    rooms = [f"vrdir.{found.name}" for found in pkgutil.iter_modules(vrdir.__path__) if found.ispkg]
    modules = [importlib.import_module(name) for name in ("vrdir", *sorted(rooms))]
    return {module.__name__: list(getattr(module, "__all__", [])) for module in modules}


def test_public_names_are_those_that_are_pinned() -> None:
    found = [f"{room}.{name}" for room, names in public_names().items() for name in sorted(names)]
    assert found == PINNED.read_text().split(), "if this is wanted, change tests/public_names.txt"


@pytest.mark.parametrize("room", public_names())
def test_public_names_can_be_imported(room: str) -> None:
    module = importlib.import_module(room)
    names = public_names()[room]
    assert set(names) <= set(dir(module))
    for name in names:
        with suppress(MissingPackageError):  # of extras that the tests do not install
            assert getattr(module, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="restaurer"):
        _ = vrdir.restaurer


def test_import_is_light() -> None:
    heavy = ("torch", "numpy", "PIL", "typer", "pydantic")
    code = f"import sys, vrdir; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_of_rooms_is_light() -> None:
    rooms = ", ".join(room for room in public_names() if room != "vrdir")
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_is_fast() -> None:
    # The limit is for the import alone, without the interpreter's own start; the best of five.
    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    alone = min(seconds("pass") for _ in range(5))
    assert min(seconds("import vrdir") for _ in range(5)) - alone < 0.3
