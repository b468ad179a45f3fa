"""The command `vrdir`, also as `python -m vrdir`: a short start, so that Ctrl-C and a broken output end it without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> None:
    """Run the command line and leave with its exit status."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 - a stream that is closed from the start is None
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    listening = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # not where it is ignored, as by nohup
    if listening:
        signal.signal(
            signal.SIGINT, leave
        )  # the imports take a third of a second, and have nothing to clean up
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
    except OSError as error:
        if (
            error.filename is not None
        ):  # a stream has no name; results go through `result_file`, which names them
            raise
        if not isinstance(error, BrokenPipeError):  # as by `| head`, where nothing is wrong
            sys.stderr.write(
                f"error: standard output cannot be written ({error.strerror}); send it elsewhere\n"
            )
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python complains when it flushes at exit
        sys.exit(1)


def leave(number: int, frame: object) -> NoReturn:
    """End the process at once, with the exit status of a signal."""
    os._exit(128 + number)


if __name__ == "__main__":
    main()
