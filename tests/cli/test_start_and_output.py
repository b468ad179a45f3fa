"""The start and the output of the command: Ctrl-C, failing outputs, warnings of libraries."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from vrdir.cli.app import app

INTERRUPTED = """
import signal, sys

module = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it


class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)


sys.meta_path.insert(0, Interrupt())
from vrdir.__main__ import main

main()
"""


def vrdir(
    *arguments: object, stdout: int = subprocess.PIPE, warnings: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command, with output buffered as outside of tests."""
    environment = os.environ | {"PYTHONUNBUFFERED": "", "PYTHONWARNINGS": warnings}
    command = [sys.executable, "-m", "vrdir", *map(str, arguments)]
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environment
    )


@pytest.mark.parametrize(
    "module",
    [
        "vrdir.cli.app",
        "typer",
        "rich.console",
        "vrdir.cli.train",
        "vrdir.degradations.degrade",
        "torch",
    ],
)
def test_ctrl_c_while_modules_are_imported(module: str, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "a.png")
    command = ["degrade", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--with", "noise"]
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


PRINTING = [
    ("--help",),
    ("weights", "list"),
    ("weights", "show", "small"),
    ("degrade", "--list", "--json"),
]
"""Commands that print and write no file."""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", PRINTING)
def test_full_disk_at_stdout_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = vrdir(*arguments, stdout=full.fileno())
    assert result.returncode == 1
    assert (
        result.stderr
        == "error: standard output cannot be written (No space left on device); send it elsewhere\n"
    )


@pytest.mark.parametrize("arguments", PRINTING)
def test_closed_pipe_is_not_an_error(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does once it has its lines
    result = vrdir(*arguments, stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_pipe_that_closes_while_files_are_processed(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(3):
        photo.save(tmp_path / "in" / f"{i}.png")
    reading, writing = os.pipe()
    os.close(reading)
    result = vrdir(
        "degrade", tmp_path / "in", "-o", tmp_path / "out", "--with", "noise", stdout=writing
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")
    assert not list((tmp_path / "out").glob("*.partial"))
    for path in (tmp_path / "out").glob("*.png"):
        Image.open(path).load()


@pytest.mark.skipif(sys.platform == "win32", reason="no such redirection there")
def test_closed_standard_streams() -> None:
    command = f"{sys.executable} -m vrdir weights show small"
    assert subprocess.run(f"{command} >&-", shell=True, check=False).returncode == 0
    assert subprocess.run(f"{command} >/dev/null 2>&-", shell=True, check=False).returncode == 0


def test_no_warning_of_pillow_is_shown(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    index = b"MPF\0II*\0" + bytes(20)  # an index of pictures without any, of which Pillow warns
    (tmp_path / "odd.jpg").write_bytes(
        content[:2] + b"\xff\xe2" + (len(index) + 2).to_bytes(2, "big") + index + content[2:]
    )
    with pytest.warns(UserWarning, match="MPO"):
        Image.open(tmp_path / "odd.jpg").load()
    result = vrdir("degrade", tmp_path / "odd.jpg", "-o", tmp_path / "out.png", "--with", "noise")
    assert (result.returncode, result.stderr) == (0, "")
    asked = vrdir(
        "degrade",
        tmp_path / "odd.jpg",
        "-o",
        tmp_path / "two.png",
        "--with",
        "noise",
        warnings="default",
    )
    assert "UserWarning" in asked.stderr


def test_users_errors_are_one_line_and_debug_adds_the_traceback() -> None:
    plain = vrdir("weights", "show", "huge")
    assert plain.returncode == 2
    assert plain.stderr == "error: unknown bundled weights 'huge'; choose one of small, field\n"
    for arguments in (
        ("--debug", "weights", "show", "huge"),
        ("weights", "show", "huge", "--debug"),
    ):
        result = vrdir(*arguments)
        assert result.returncode == 2
        assert "Traceback" in result.stderr
        assert result.stderr.endswith(plain.stderr)


FAULTY = """
import vrdir.weights.bundled as bundled
from vrdir.__main__ import main


def bundled_weights():
    return {}["no such key"]


bundled.bundled_weights = bundled_weights
main()
"""


@pytest.mark.parametrize("command", ["list", "show"])
def test_bug_keeps_traceback_and_says_how_to_report_it(
    command: str,
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FAULTY, "weights", command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "KeyError: 'no such key'" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: this is a bug in vrdir. Please report it")
    assert "vrdir info" in last


def test_system_error_with_file_name_is_one_line(tmp_path: Path) -> None:
    code = FAULTY.replace('{}["no such key"]', f"open({str(tmp_path / 'lost.json')!r})")
    result = subprocess.run(
        [sys.executable, "-c", code, "weights", "list"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith(f"No such file or directory: '{tmp_path / 'lost.json'}'\n")
    assert result.stderr.count("\n") == 1


def test_verbose_and_debug_print_log_messages(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = ("degrade", tmp_path / "broken.png", "-o", tmp_path / "out.png", "--with", "noise")
    assert "DEBUG vrdir.batch.process" not in vrdir(*command).stderr
    assert "DEBUG vrdir.batch.process" not in vrdir(*command, "--verbose").stderr
    debug = vrdir(*command, "--debug").stderr
    assert f"DEBUG vrdir.batch.process: {tmp_path / 'broken.png'}" in debug
    assert "Traceback" in debug


def test_every_command_has_debug_and_verbose() -> None:
    def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
        below = getattr(command, "commands", {})
        if not below:
            yield path, command
        for name, each in below.items():
            yield from leaves(each, (*path, name))

    commands = dict(leaves(typer.main.get_command(app)))
    assert len(commands) > 10
    for path, command in commands.items():
        names = [option.name for option in command.params]
        assert names.count("debug") == names.count("verbose") == 1, path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows deletes no folder that is in use")
def test_deleted_current_folder_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = f"import os; os.chdir({str(folder)!r}); os.rmdir({str(folder)!r})"
    result = subprocess.run(
        [sys.executable, "-c", f"{script}; from vrdir.__main__ import main; main()", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == "error: the current folder no longer exists; change to another\n"
