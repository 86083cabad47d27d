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
    dray queue dead --replay-all   try them again
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
    "dead",
    epilog=EXIT_CODES,
    short_help="Show, replay or discard the events that failed for good.",
)
def queue_dead(
    context: typer.Context,
    replay: Annotated[
        str | None, typer.Option(metavar="ID", help="Send this one to its queue again.")
    ] = None,
    replay_all: Annotated[
        bool, typer.Option("--replay-all", help="Send all of them to their queues again.")
    ] = False,
    queue: Annotated[
        str | None,
        typer.Option("--queue", metavar="NAME", help="With --replay-all: those of this queue."),
    ] = None,
    discard: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Remove this one for good: nobody will handle it."),
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL[,URL]", help="As for `dray queue`.")
    ] = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the events that failed again and again; replay them when the cause is gone.

    An event that failed once more is a dead letter again: look for the cause first, in the log
    of the service that takes from its queue. Replaying is harmless: what was done already is not
    done twice. Discard only what can never be digested.

    \b
    dray queue dead
    dray queue dead --replay ID
    dray queue dead --replay-all --queue converter.pulls
    dray queue dead --discard ID
    dray queue dead --json | jq -r '.items[].body'
    """
    from cli import dead  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    wish = dead.DeadWish(replay, replay_all, queue, discard)
    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(dead.dead(Gateway(url or context.obj), wish, style, json=json))
