"""What the commands that show the site live understand: `dray top` and `dray dashboard`."""

from typing import Annotated

import typer

from cli.account_commands import ScopeName
from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, System, Url

commands = typer.Typer(rich_markup_mode=None)


@commands.command(epilog=EXIT_CODES, short_help="Watch pulls, queues and jobs live.")
def top(
    once: Annotated[
        bool, typer.Option("--once", help="Show how it stands, and end: as without a terminal.")
    ] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Watch whether users are waiting, and why: what keeps them, pulls, queues and jobs.

    What you see is what you may see: your own jobs, and all of it as an admin. It changes as the
    gateway tells it. `q` or Ctrl-C ends it.

    \b
    dray top
    dray top --once | mail -s "dray this morning" operators
    dray top --json | jq '.worries[].message'
    """
    from cli import top as shown  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(shown.top(Gateway(url), system, once=once, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Print a link that opens the dashboard, signed in.")
def dashboard(
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="URL",
            help="Where browsers find the gateway. Default: --url, or this machine's loopback.",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        ScopeName | None,
        typer.Option(metavar="read|pull|admin", help="Default: admin for admins, else read."),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="For how long: 90s, 30m, 12h, 1d.")
    ] = "8h",
    url: Url = LOCAL_GATEWAY,
    json: Json = False,
) -> None:
    """Print a link that opens the dashboard and signs you in.

    Users see their own jobs and images, and the public ones; admins see all. Whoever has the link
    can use it until it expires. The token in it stays in the browser's tab: it is in the part of
    the address that is never sent, and leaves the address bar at once.

    From another machine, bring the gateway's port to yours first:

    \b
    ssh -L 7600:127.0.0.1:7600 GATEWAY dray dashboard
    dray dashboard --at https://dray.example.org --expires 12h
    """
    from cli import dashboard as link  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    wanted = None if scope is None else scope.value
    raise typer.Exit(link.dashboard(Gateway(url), url, at, wanted, expires, json=json))
