"""What `dray queue` understands."""

from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, NoHeader, Quiet, System, Url

queue_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@queue_app.callback(epilog=EXIT_CODES)
def queue(
    context: typer.Context,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the pulls that are under way, and those that failed, with the reason.

    \b
    dray queue
    dray queue dead                the events that no service could digest
    dray queue dead --replay ID    try one of them again
    """
    if context.invoked_subcommand is not None:
        context.obj = url
        return
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(lists.queue(Gateway(url), system, style, json=json))


@queue_app.command(
    "dead", epilog=EXIT_CODES, short_help="Show, or replay, the events that failed for good."
)
def queue_dead(
    context: typer.Context,
    replay: Annotated[
        str | None, typer.Option(metavar="ID", help="Send this one to its queue again.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL[,URL]", help="As for `dray queue`.")
    ] = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the events that failed again and again, or replay one when its cause is gone.

    \b
    dray queue dead
    dray queue dead --replay ID
    dray queue dead -q | xargs -n 1 dray queue dead --replay
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    gateway = Gateway(url or context.obj)
    if replay is not None:
        raise typer.Exit(lists.replay(gateway, replay, json=json))
    from cli.tables import Style  # noqa: PLC0415

    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(lists.dead_letters(gateway, style, json=json))
