"""What users import stays what it is, and importing it stays fast."""

import subprocess
import sys
import time

import pytest

import vrdir


def test_public_names() -> None:
    assert vrdir.__all__ == [
        "VRDIR", "Camera", "ImageError", "Restoration", "Restore", "Restored", "Restorer", "VRDIRConfig", "VrdirError",
        "__version__", "degrade", "restore_before",
    ]  # fmt: skip
    assert set(dir(vrdir)) == set(vrdir.__all__)
    for name in vrdir.__all__:
        assert getattr(vrdir, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="restaurer"):
        _ = vrdir.restaurer


def test_import_is_light() -> None:
    code = "import sys, vrdir; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL', 'typer', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_import_is_fast() -> None:
    # The bound is on the import, so the interpreter's own start (measured beside it) does not count; best of five.
    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    assert (
        min(seconds("import vrdir") for _ in range(5)) - min(seconds("pass") for _ in range(5))
        < 0.3
    )
