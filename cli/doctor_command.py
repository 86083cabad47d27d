"""What `dray doctor` understands."""

from pathlib import Path
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.options import Json, Socket, Url

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    short_help="Check the setup, and say what to do about what is wrong.",
    epilog="Exit codes: 0 nothing is broken; 1 something is; 2 wrong usage.",
)
def doctor(
    url: Url = LOCAL_GATEWAY,
    socket: Socket = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="DRAY_CONFIG",
            metavar="FILE",
            help="For operators: check these settings, and what they name, too.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check the setup of a user or an operator, and say what to do about what is wrong.

    Asks each gateway for itself: whether it answers and can work, its version, its clock, and who
    it takes you for. Looks at this machine: MUNGE, the node's agent, squashfs and loop devices,
    what entering images takes, room for files. With settings, also at directories, bus and
    database.

    \b
    dray doctor
    dray doctor --url http://gw1:7600,http://gw2:7600
    dray doctor --json | jq '.items[] | select(.verdict == "broken")'
    dray doctor --config /etc/dray/dray.yaml
    """
    from cli.doctor import Wish  # noqa: PLC0415
    from cli.doctor import doctor as run  # noqa: PLC0415

    raise typer.Exit(run(Wish(url, socket, config), json=json))
