"""The command line. Heavy imports are inside the commands, so that `vrdir --help` is fast."""

from __future__ import annotations

from typing import Annotated

import typer

from vrdir.cli.adapt import adapt
from vrdir.cli.console import out
from vrdir.cli.degrade import degrade
from vrdir.cli.errors import quiet_pillow
from vrdir.cli.evaluate import evaluate_app
from vrdir.cli.export import export_app
from vrdir.cli.info import info
from vrdir.cli.live import live
from vrdir.cli.pairs import pairs_app
from vrdir.cli.plan import plan
from vrdir.cli.restore import restore
from vrdir.cli.serve import serve
from vrdir.cli.settings import RootGroup
from vrdir.cli.threads import wait_quietly
from vrdir.cli.train import train_app
from vrdir.cli.web import web_app
from vrdir.cli.weights import weights_app

app = typer.Typer(
    help="Restore images taken in haze, rain or noise, so that recognisers trained on clean photos "
    "work again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(restore)
app.command()(degrade)
app.command()(plan)
app.add_typer(pairs_app, name="pairs")
app.add_typer(train_app, name="train")
app.command()(adapt)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(export_app, name="export")
app.add_typer(web_app, name="web")
app.add_typer(weights_app, name="weights")
app.command()(serve)
app.command()(live)
app.command()(info)


@app.callback(invoke_without_command=True, cls=RootGroup)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Prepare the process for a command."""
    wait_quietly()
    quiet_pillow()
    if version:
        from vrdir import __version__

        out.print(f"vrdir {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)
