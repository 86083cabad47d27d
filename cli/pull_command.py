"""What `dray pull` understands."""

from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Groups, Json, Reference, System, Url, Users

commands = typer.Typer(rich_markup_mode=None)


@commands.command(epilog=EXIT_CODES, short_help="Fetch an image and make it READY on the cluster.")
def pull(
    reference: Reference,
    user: Users = None,
    group: Groups = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask for it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Check what is placed; make it again if damaged.")
    ] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Fetch an image from its registry and make it READY on the cluster.

    Shows the bytes as they come. Ctrl-C stops only the watching: the pull goes on, and the same
    command joins it again. An image that has not changed is READY at once.

    An image that its registry gives only to users whom it knows (see `dray login`) is private: its
    readers are you, and whom you name with --user and --group.

    \b
    dray pull ubuntu:24.04
    dray pull --no-wait registry.example.org:5000/group/solver:2.1
    dray pull --user ada --group lab registry.example.org/group/secret:1.0
    dray pull --force ubuntu:24.04
    dray pull --json alpine:3 | jq -r .image.id
    """
    from cli.gateway import Gateway, PullWish  # noqa: PLC0415
    from cli.people import group_ids, user_ids  # noqa: PLC0415
    from cli.pull import pull as run  # noqa: PLC0415

    wish = PullWish(
        reference,
        system,
        force=force,
        uids=tuple(user_ids(user)) if user else None,
        gids=tuple(group_ids(group)) if group else None,
    )
    raise typer.Exit(run(Gateway(url), wish, wait=not no_wait, json=json))
