"""The files in deploy/: what they start really runs, and their own checkers accept them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image
from tests.serving.servers import ANSWER_SECONDS, Server, assert_problem, encoded, get
from websockets.sync.client import connect

DEPLOY = Path(__file__).parents[2] / "deploy"
# A checker may be in another folder than those in PATH.
NGINX = os.environ.get("VRDIR_TEST_NGINX") or shutil.which("nginx")
HADOLINT = os.environ.get("VRDIR_TEST_HADOLINT") or shutil.which("hadolint")
KEY = "a-long-key-for-tests-1234"


def dockerfile(instruction: str) -> list[str]:
    """Return the words of an instruction of the Dockerfile in exec form."""
    found = re.search(rf"^{instruction} .*?(\[.*?\])$", text(), re.MULTILINE | re.DOTALL)
    assert found
    return [str(word) for word in yaml.safe_load(found[1])]


def text() -> str:
    return (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")


def test_container_serves_and_is_healthy(tmp_path: Path) -> None:
    """The entry point with the command of compose.yaml, and the health check, without Docker."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["vrdir"]["command"] == services["vrdir-cuda"]["command"]
    keys = tmp_path / "keys.txt"
    keys.write_text(KEY)
    command = [*dockerfile("ENTRYPOINT"), *services["vrdir"]["command"]]
    assert command[:2] == ["vrdir", "serve"]
    options = [word.replace("/run/secrets/keys", str(keys)) for word in command[2:]]
    with Server(*options) as running:
        check = [word.replace(":8000", f":{running.port}") for word in dockerfile("HEALTHCHECK")]
        subprocess.run([sys.executable, *check[1:]], check=True, timeout=ANSWER_SECONDS)
        assert_problem(get(f"{running.url}/v1/weights"), 401, "key-missing")
    failed = subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False)
    assert failed.returncode != 0


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint")
def test_hadolint_accepts_the_dockerfile() -> None:
    assert HADOLINT is not None
    subprocess.run([HADOLINT, str(DEPLOY / "Dockerfile")], check=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "vrdir.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert program
    (tmp_path / "vrdir.service").write_text(unit.replace(program[1], sys.executable))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "vrdir.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_unit_starts_a_command_that_exists() -> None:
    from typer.testing import CliRunner

    from vrdir.cli.app import app

    unit = (DEPLOY / "vrdir.service").read_text()
    line = re.search(r"^ExecStart=\S+ (.+)$", unit, re.MULTILINE)
    assert line
    words = shlex.split(line[1])
    known = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200"}).output
    for option in words[1:]:
        assert not option.startswith("--") or option in known


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[int]:
    """The port of nginx with the site of deploy/nginx.conf, in front of a service."""
    assert NGINX is not None
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=photos.example", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Server("--allow-host", "photos.example") as running:
        site = (DEPLOY / "nginx.conf").read_text()
        for old, new in {
            "/etc/ssl/photos.example.pem": str(certificate),
            "/etc/ssl/photos.example.key": str(key),
            "127.0.0.1:8000": f"127.0.0.1:{running.port}",
            "listen 443": f"listen 127.0.0.1:{port}",
        }.items():
            assert old in site
            site = site.replace(old, new)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        # As root, nginx's workers are another user by default, who cannot write to these folders.
        whole = "user root; " if os.geteuid() == 0 else ""
        whole += f"pid {tmp_path}/pid; daemon off; events {{}} http {{ access_log off; {folders}"
        (tmp_path / "nginx.conf").write_text(f"{whole}\n{site}\n}}\n")
        command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        command += ["-e", str(tmp_path / "error.log")]
        subprocess.run([*command, "-t"], check=True)
        with subprocess.Popen(command) as nginx:
            try:
                _wait_for(port)
                yield port
            finally:
                nginx.terminate()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nginx does not listen")


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
def test_nginx_passes_images_and_streams(proxied: int, cat: Image.Image) -> None:
    address = f"https://127.0.0.1:{proxied}"
    headers = {"Host": "photos.example"}
    with httpx.Client(base_url=address, headers=headers, verify=False, timeout=300) as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.post("/v1/restore", content=encoded(cat)).status_code == 200
        assert client.get("/metrics").status_code == 403
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opened = connect(
        "wss://photos.example/v1/stream?max_side=32",
        sock=socket.create_connection(("127.0.0.1", proxied)),
        ssl=context,
        open_timeout=ANSWER_SECONDS,
    )
    with opened:
        opened.send(encoded(cat))
        assert "problem" not in str(opened.recv(timeout=ANSWER_SECONDS))
