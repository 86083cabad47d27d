"""The `dray` command: what it understands. What it does stands in the module of each command.

Nothing heavy is imported before a command is known: a status command answers at once.
"""

import sys
from typing import Annotated

import typer

from cli import (
    account_commands,
    completion_command,
    doctor_command,
    export_command,
    image_commands,
    import_command,
    login_commands,
    pull_command,
    run_command,
    site_commands,
    up_command,
    watch_command,
)
from cli.convert_command import convert
from cli.errors import EXIT_CODES
from cli.hook_command import hook_app
from cli.inspect_command import inspect
from cli.output import guarded
from cli.queue_command import queue_app
from cli.sections import Sections
from cli.store_command import store_app

app = typer.Typer(
    name="dray",
    cls=Sections,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
here = typer.Typer(rich_markup_mode=None)
here.command(
    short_help="Make a squashfs file of an image, without services.",
    epilog="Exit codes: 0 done; 1 failed, with the reason; 2 wrong usage; 130 and 143 interrupted.",
)(convert)
here.command(
    short_help="Show an image's layers, sharing and dead data.",
    epilog="Exit codes: 0 done; 1 the image is not there, or is damaged; 2 wrong usage; "
    "3 no gateway answers.",
)(inspect)
# Those without a name add their commands to `dray` itself.
app.add_typer(pull_command.commands)
app.add_typer(import_command.commands)
app.add_typer(export_command.commands)
app.add_typer(image_commands.commands)
app.add_typer(run_command.commands)
app.add_typer(watch_command.commands)
app.add_typer(queue_app, name="queue", short_help="Show what is being pulled, and what failed.")
app.add_typer(site_commands.commands)
app.add_typer(hook_app, name="hook", short_help="What a scheduler calls; see docs/slurm.md.")
app.add_typer(login_commands.commands)
app.add_typer(account_commands.commands)
app.add_typer(here)
app.add_typer(store_app, name="store", short_help="Look after a pack store.")
app.add_typer(up_command.commands)
app.add_typer(doctor_command.commands)
app.add_typer(completion_command.commands)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"dray {version('dray')}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def dray(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Bring container images to a supercomputer, and run commands inside them.

    \b
    dray up                        start everything on this machine
    dray pull alpine:3             fetch an image, once for all nodes
    dray run alpine:3 cat /etc/os-release
    """


def main() -> None:
    """The console script."""
    sys.exit(guarded(app))
