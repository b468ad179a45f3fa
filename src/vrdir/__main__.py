"""The command `vrdir`, also as `python -m vrdir`.

It starts fast, and Ctrl-C and a closed output end it without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Run the command line and exit with its status."""
    # A stream that is closed from the start is None.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        os.getcwd()  # noqa: PTH109 - pathlib takes long to import
    except OSError:  # it was deleted; torch's libraries would fail with their own messages
        sys.stderr.write("error: the current folder no longer exists; change to another\n")
        sys.exit(2)
    # Not where Ctrl-C is ignored, as by nohup.
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listening:
        # The imports take a third of a second, and leave nothing to clean up.
        signal.signal(signal.SIGINT, leave)
    from vrdir.cli.app import app

    try:
        try:
            if listening:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            app(prog_name="vrdir")
        finally:
            if listening:
                signal.signal(signal.SIGINT, leave)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        sys.exit(status_of(error))


def status_of(error: Exception) -> int:
    """Print an error that no command has handled, and return the exit status.

    A closed output, as by `| head`, is not an error: nothing is printed.
    """
    # Results go to named files. An error without a file name belongs to a standard stream.
    if isinstance(error, OSError) and error.filename is None:
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(
                f"error: standard output cannot be written ({error.strerror}); send it elsewhere\n"
            )
        # Otherwise Python complains when it flushes the stream at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    from vrdir.cli.errors import FAILED, print_error, report_bug, users_status

    status = users_status(error)
    if status is None:
        report_bug(error)
        return FAILED
    print_error(error)
    return status


def leave(number: int, frame: object) -> NoReturn:
    """End the process at once, with the exit status of a signal."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
