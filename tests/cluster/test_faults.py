"""S3 itself in trouble: busy, slow, broken, and with wrong credentials."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import forget, photo, through
from tests.cluster.faults import proxy
from typer.testing import CliRunner

from vrdir.cli.app import app
from vrdir.cluster import attempts, listing, storage
from vrdir.cluster.account import Account
from vrdir.cluster.run import restore_addresses
from vrdir.cluster.work import Options
from vrdir.errors import NotPermittedError

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the one of Amazon's documentation
KEY_ID = "AKIAIOSFODNN7EXAMPLE"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Wait little before trying again."""
    monkeypatch.setattr(attempts, "LONGEST_WAIT_S", 0.05)
    yield
    forget()


def test_temporary_errors_are_overcome(
    bucket: str, s3_server: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["busy", "failing", "slow", "broken", "short"]
    for number, kind in enumerate([*kinds, "lost"]):
        storage.write(f"{bucket}/in/{kind}.png", photo(number))

    def fault(method: str, path: str, asked: int) -> str:
        """Fail twice: reading by the kind in the name, writing and listing by turns."""
        if asked >= 2:
            return ""
        if method == "GET" and "list-type" in path:
            return kinds[asked]
        if method == "PUT":
            return "lost" if "/lost" in path else ["busy", "broken"][asked]
        name = path.rpartition("/")[2].removesuffix(".png")
        return name if method == "GET" and name in kinds else ""

    with proxy(s3_server, fault) as faulty:
        through(faulty.address, monkeypatch)
        rows = list(restore_addresses([f"{bucket}/in"], f"{bucket}/out", options))
    assert {row.error for row in rows} == {""}
    assert all(faulty.faults[kind] >= 2 for kind in [*kinds, "lost"]), faulty.faults
    through(s3_server, monkeypatch)
    list(restore_addresses([f"{bucket}/in"], f"{bucket}/again", options))
    for kind in [*kinds, "lost"]:  # nothing is half there
        name = f"{kind}.png"
        assert storage.read(f"{bucket}/out/{name}") == storage.read(f"{bucket}/again/{name}")
    assert len(Account(f"{bucket}/out").table()) == len(rows)  # no row twice


def test_failed_images_are_done_by_a_later_run(
    bucket: str, s3_server: str, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("down", "denied", "good"):
        storage.write(f"{bucket}/in/{name}.png", photo(1))
    storage.write(f"{bucket}/in/bad.png", b"no image")

    def fault(method: str, path: str, asked: int) -> str:
        if method != "GET" or "/in/" not in path:
            return ""
        return {"down": "busy", "denied": "denied"}.get(path.rpartition("/")[2][:-4], "")

    inputs, output = [f"{bucket}/in"], f"{bucket}/out"
    with proxy(s3_server, fault) as faulty:
        through(faulty.address, monkeypatch)
        rows = {Path(row.source).stem: row for row in restore_addresses(inputs, output, options)}
        asked = {
            Path(path).stem: count
            for (method, path), count in faulty.asked.items()
            if method == "GET" and "/in/" in path
        }
    assert {name: row.status for name, row in rows.items()} == {
        "down": "unreachable",
        "denied": "unreachable",
        "good": "restored",
        "bad": "failed",
    }
    assert "the server returns status 503" in rows["down"].error
    assert "access denied; check the credentials" in rows["denied"].error
    assert (asked["down"], asked["denied"]) == (attempts.ATTEMPTS, 1)
    through(s3_server, monkeypatch)
    again = restore_addresses(inputs, output, options, resume=True)
    assert {Path(row.source).stem: row.status for row in again} == {
        "down": "restored",
        "denied": "restored",
    }


@pytest.mark.parametrize("fault", ["wrong key", "wrong secret"])
def test_wrong_credentials_are_one_line(
    bucket: str,
    s3_server: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "vrdir")
    with proxy(s3_server, lambda *_: fault) as faulty:
        through(faulty.address, monkeypatch)
        with pytest.raises(NotPermittedError):
            list(listing.sources([f"{bucket}/in"]))
        given = ["restore", f"{bucket}/in", "-o", str(tmp_path / "out"), "--weights", str(tiny)]
        result = CliRunner().invoke(app, given)
        assert faulty.faults[fault] <= 4  # asked once for each thing, not six times
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "access denied; check the credentials (environment or profile)" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
    for text in (result.output, caplog.text):
        assert SECRET not in text
        assert KEY_ID not in text


def test_account_and_lines_contain_no_secrets(
    bucket: str, s3_server: str, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    storage.write(f"{bucket}/in/good.png", photo(1))
    storage.write(f"{bucket}/in/down.png", photo(2))
    caplog.set_level(logging.INFO)
    with proxy(s3_server, lambda m, path, n: "busy" if path.endswith("in/down.png") else "") as bad:
        through(bad.address, monkeypatch)
        given = ["restore", f"{bucket}/in", "-o", f"{bucket}/out", "--weights", str(tiny)]
        result = CliRunner().invoke(app, [*given, "--device", "cpu", "--json"])
    assert result.exit_code == 1, result.output
    through(s3_server, monkeypatch)
    account = Account(f"{bucket}/out")
    noted = storage.read(f"{account.folder}/_run.json").decode() + json.dumps(account.rows())
    for text in (result.output, caplog.text, noted):
        assert SECRET not in text
        assert KEY_ID not in text
