"""What the commands about the site understand: its nodes, jobs and use."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, NoHeader, Quiet, System, Url

commands = typer.Typer(rich_markup_mode=None)


class By(StrEnum):
    """What a line of usage is about."""

    IMAGE = "image"
    USER = "user"
    DAY = "day"
    HOUR = "hour"


@commands.command(
    epilog="Exit codes: as for `dray images`; 1 also where a node of the job failed or is lost.",
    short_help="Show jobs, and how far their nodes are.",
)
def jobs(
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="One of them, with its nodes.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="So many, the newest first.")
    ] = 50,
    all_nodes: Annotated[
        bool,
        typer.Option("--all-nodes", help="Of one job: each node in a line of its own."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Of one job: first until all its nodes have answered.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="SECONDS", help="How long to wait."),
    ] = 600.0,
    running: Annotated[
        bool, typer.Option("--running", help="Only those that were not released yet.")
    ] = False,
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", metavar="USER", help="Of this user.", show_default=False),
    ] = None,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the jobs that the scheduler announced, and how many of their nodes have the images.

    \b
    dray jobs
    dray jobs 4711                 its nodes by state, as hostlists, with the reason
    dray jobs 4711 --wait --timeout 60
    dray jobs 4711 --all-nodes
    dray jobs --json | jq '.items[] | select(.counts.FAILED > 0) | .job_id'
    """
    from cli import jobs as commands_of  # noqa: PLC0415
    from cli.errors import UsageError  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    if not job and (job is not None or wait or all_nodes):
        raise UsageError("name the job, as in: dray jobs 4711 --wait")
    gateway, style = Gateway(url), Style(header=not no_header, quiet=quiet)
    if job is not None:
        one = commands_of.JobWish(job, all_nodes=all_nodes, wait=timeout if wait else None)
        raise typer.Exit(commands_of.job(gateway, one, style, json=json))
    wish = commands_of.JobsWish(system, user, running, limit)
    raise typer.Exit(commands_of.jobs(gateway, wish, style, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Show the nodes' agents and how they mount.")
def nodes(
    hostlist: Annotated[
        str | None,
        typer.Argument(
            metavar="HOSTLIST", help="These nodes, as nid[001-128].", show_default=False
        ),
    ] = None,
    lost: Annotated[bool, typer.Option("--lost", help="Only those not heard any more.")] = False,
    alive: Annotated[bool, typer.Option("--alive", help="Only those that are heard.")] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show the nodes' agents: how each mounts images, and when it was last heard.

    \b
    dray nodes
    dray nodes 'nid[001-128]'
    dray nodes --lost -q
    """
    from cli import nodes as commands_of  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    style = Style(header=not no_header, quiet=quiet)
    state = "lost" if lost and not alive else "alive" if alive and not lost else None
    wish = commands_of.NodesWish(system, state, hostlist)
    raise typer.Exit(commands_of.nodes(Gateway(url), wish, style, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Show how much you have, and may have.")
def quota(url: Url = LOCAL_GATEWAY, no_header: NoHeader = False, json: Json = False) -> None:
    """Show how many images and bytes you have on each system, and how many you may have.

    \b
    dray quota
    """
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415
    from cli.usage import quota as run  # noqa: PLC0415

    raise typer.Exit(run(Gateway(url), Style(header=not no_header), json=json))


@commands.command(epilog=EXIT_CODES, short_help="Show who used which images, and when.")
def usage(
    by: Annotated[
        By, typer.Option(metavar="image|user|day|hour", help="What each line is about.")
    ] = By.IMAGE,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="12h, 7d or 4w ago; or 2026-11-21, or 2026-11-21T09:00. Default: as the gateway "
            "has it.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Likewise. Default: now.", show_default=False),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", metavar="USER", help="Of this user.", show_default=False),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--image", metavar="REF", help="Of this image.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="So many lines.")
    ] = 100,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Show how often images were looked up, pulled and used by jobs.

    Of others than yourself you see no more than what concerns your own images, and totals.

    \b
    dray usage
    dray usage --by day --since 4w
    dray usage --by user --image group/solver:2.1
    dray usage --json --limit 10000 | jq '[.items[].jobs] | add'
    """
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415
    from cli.usage import Wish  # noqa: PLC0415
    from cli.usage import usage as run  # noqa: PLC0415

    wish = Wish(by.value, since, until, user, reference, system, limit)
    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(run(Gateway(url), wish, style, json=json))
