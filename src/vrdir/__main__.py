"""`python -m vrdir` is the command `vrdir`."""

from vrdir.cli.app import app

if __name__ == "__main__":
    app(prog_name="vrdir")
