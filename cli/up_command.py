"""What `dray up` understands."""

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(rich_markup_mode=None)


@commands.command(short_help="Start all services on this machine.")
def up(
    config: Annotated[
        Path | None,
        typer.Option(envvar="DRAY_CONFIG", metavar="FILE", help="YAML or TOML settings."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="For the gateway. Default: 127.0.0.1:7600."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For everything it keeps. Default: /var/lib/dray as root, else "
            "~/.local/share/dray.",
        ),
    ] = None,
) -> None:
    """Start gateway, converter, distributor and node agent in one process, until Ctrl-C.

    Nothing else is needed: events stay in the process, the catalog is an SQLite file. When all is
    up it says what to export where other commands would not find it. Beyond one machine the same
    services run as processes of their own over RabbitMQ and MongoDB.

    \b
    dray up
    dray up --listen 127.0.0.1:7700 --data /scratch/$USER/dray
    """
    from cli.up import up as run_all  # noqa: PLC0415

    run_all(config, listen, data)
