"""The table of backends: entries are complete, and a new one needs one module and one entry."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import IDENTITY_ONNX, TINY, text
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.errors import InputError
from vrdir.export.backends import BACKEND_NAMES, BACKENDS, FORMATS, exported_backend
from vrdir.export.contract import FACTS_KEY
from vrdir.export.exported_model import ExportFacts


@pytest.mark.parametrize("name", BACKENDS)
def test_entry_names_a_module_with_the_needed_functions(name: str) -> None:
    from importlib import import_module

    backend = BACKENDS[name]
    module = import_module(backend.module)
    assert callable(module.open_network)
    if backend.written:
        assert backend.written == (".onnx",) or callable(module.convert)
        assert backend.written[0] in backend.suffixes
        assert FORMATS[backend.written[0]] is backend
    else:  # it runs the files of another backend
        assert set(backend.suffixes) <= set(FORMATS)


def test_command_line_offers_every_backend() -> None:
    runner = CliRunner(env={"COLUMNS": "200"})
    listed = text(runner.invoke(app, ["export", "--help"]))
    options = text(runner.invoke(app, ["restore", "--help"]))
    for name, backend in BACKENDS.items():
        assert (f" {name} " in listed) == bool(backend.written)
        assert name in options
    wrong = runner.invoke(app, ["restore", "a.png", "-o", "b.png", "--backend", "tensorflow"])
    assert wrong.exit_code == 2
    for name in BACKEND_NAMES:
        assert name in text(wrong)


def test_error_names_unknown_backend() -> None:
    with pytest.raises(InputError, match=f"runs with backend {' or '.join(BACKENDS)}, not 'torch'"):
        exported_backend("torch")


@pytest.mark.parametrize("policy", ["PASSIVE", "passive", ""])
def test_threads_of_onnx_runtime_sleep_where_those_of_torch_do(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    from vrdir.export.onnx_runtime import onnx_session

    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    (tmp_path / "identity.onnx").write_bytes(IDENTITY_ONNX)
    options = onnx_session(onnxruntime, tmp_path / "identity.onnx").get_session_options()
    entry = "session.intra_op.allow_spinning"
    if policy:
        assert options.get_session_config_entry(entry) == "0"
    else:
        with pytest.raises(RuntimeError):  # ONNX Runtime's own default, which is not documented
            options.get_session_config_entry(entry)


NEW_BACKEND = """
import sys
from pathlib import Path

import vrdir.export.backends as backends

sys.path.insert(0, sys.argv[1])
backends.BACKENDS["mirror"] = backends.Backend(
    "mirror", "Mirror", "json", "export", (".onnx",), (".onnx",), "mirror_runtime"
)
from vrdir.export.exported_model import ExportedModel

import torch

exported = ExportedModel(Path(sys.argv[2]), "mirror")
image = torch.rand(1, 3, 5, 7)
assert torch.equal(exported.restore(image).image, image.flip(-1))
"""
MIRROR = """
from vrdir.export.contract import OpenedNetwork
from vrdir.export.onnx_runtime import open_network as open_onnx


def open_network(path):
    def run(image):
        return image[..., ::-1], image[:, :2, 0, 0]

    return OpenedNetwork(run, open_onnx(path).facts)
"""


def test_new_backend_needs_one_module_and_one_entry(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_from_string(IDENTITY_ONNX)
    facts = ExportFacts(vrdir="0", weights_sha256="0", config=TINY)
    onnx.helper.set_model_props(proto, {FACTS_KEY: facts.model_dump_json()})
    onnx.save(proto, tmp_path / "net.onnx")
    (tmp_path / "mirror_runtime.py").write_text(MIRROR)
    command = [sys.executable, "-c", NEW_BACKEND, str(tmp_path), str(tmp_path / "net.onnx")]
    subprocess.run(command, check=True)
