"""What `dray store` understands; `cli.main` lists it, and nothing heavy is imported before."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = """Exit codes: 0 done; 1 failed, or something is damaged; 2 wrong usage."""

store_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The pack store. Default: that of the settings.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        envvar="DRAY_CONFIG", metavar="FILE", help="YAML or TOML settings.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@store_app.callback()
def store() -> None:
    """Look after a pack store, with or without services running on it.

    \b
    dray store status --store /lustre/dray/store
    dray store collect             remove now what the settings allow
    dray store scrub               read all of it now; set aside what is damaged
    dray store status --store ~/.cache/dray    what `dray convert` keeps
    """


@store_app.command(epilog=EXIT_CODES)
def status(store: Store = None, config: Config = None, json: Json = False) -> None:
    """Show what is in the store, and how much of it no image holds."""
    from cli import store as commands  # noqa: PLC0415

    raise typer.Exit(commands.status(commands.opened(store, config), json=json))


@store_app.command(epilog=EXIT_CODES)
def collect(store: Store = None, config: Config = None, json: Json = False) -> None:
    """Remove what converters would remove at their next cleaning."""
    from cli import store as commands  # noqa: PLC0415

    raise typer.Exit(commands.collect(commands.opened(store, config), json=json))


@store_app.command(epilog=EXIT_CODES, short_help="Read and check all packs and tables.")
def scrub(store: Store = None, config: Config = None, json: Json = False) -> None:
    """Read and check all packs and tables, as fast as the disks are; exit 1 if any is damaged."""
    from cli import store as commands  # noqa: PLC0415

    raise typer.Exit(commands.scrub(commands.opened(store, config), json=json))
