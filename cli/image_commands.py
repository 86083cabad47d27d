"""What the commands about images that are there understand."""

from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import (
    Groups,
    Json,
    NoHeader,
    Quiet,
    Reference,
    References,
    System,
    Url,
    Users,
)

commands = typer.Typer(rich_markup_mode=None)

Owner = Annotated[
    str | None,
    typer.Option(
        metavar="USER",
        help="Whose image, if it is neither yours nor the site's; for operators.",
        show_default=False,
    ),
]


@commands.command(epilog=EXIT_CODES)
def images(
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List the images that are READY.

    \b
    dray images
    dray images -q | grep ^old/ | xargs dray rm
    dray images --json | jq -r .items[].reference
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(lists.images(Gateway(url), system, style, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Say what a reference stands for, and runs.")
def lookup(
    reference: Reference,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the id.")] = False,
    json: Json = False,
) -> None:
    """Say what a reference stands for: id, size, digest, what it runs.

    \b
    dray lookup ubuntu:24.04
    dray lookup -q ubuntu:24.04
    dray lookup --json ubuntu:24.04 | jq -r .env[]
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(lists.lookup(Gateway(url), reference, system, quiet=quiet, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Take images away; jobs that use them go on.")
def rm(
    references: References,
    owner: Owner = None,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Take images away that you pulled, also pinned ones; by id, all that stands for it.

    Nobody finds them from now on. A job that has one mounted keeps it until it ends; then its file
    goes, too, unless another reference stands for the same image.

    \b
    dray rm group/solver:2.0
    dray rm group/solver:2.0 group/solver:2.1
    """
    from cli import manage  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    which = manage.Which(references, system, owner)
    raise typer.Exit(manage.remove(Gateway(url), which, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Keep images from expiring.")
def pin(
    references: References,
    owner: Owner = None,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Keep images from expiring, however long nobody uses them.

    \b
    dray pin group/solver:2.1
    """
    from cli import manage  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    which = manage.Which(references, system, owner)
    raise typer.Exit(manage.pin(Gateway(url), which, pinned=True, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Let images expire again.")
def unpin(
    references: References,
    owner: Owner = None,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Let images expire again, when nobody has used them for as long as the site says.

    \b
    dray unpin group/solver:2.1
    """
    from cli import manage  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    which = manage.Which(references, system, owner)
    raise typer.Exit(manage.pin(Gateway(url), which, pinned=False, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Take away at once what expires by now.")
def expire(url: Url = LOCAL_GATEWAY, system: System = None, json: Json = False) -> None:
    """Take away at once what nobody has used for as long as the settings say; for operators.

    The gateway does the same now and then by itself. What is pinned stays, and what jobs use.

    \b
    dray expire
    dray expire --system daint --json | jq .expired
    """
    from cli import manage  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(manage.expire_unused(Gateway(url), system, json=json))


@commands.command(epilog=EXIT_CODES, short_help="Say who may use a private image of yours.")
def share(
    reference: Reference,
    user: Users = None,
    group: Groups = None,
    nobody: Annotated[bool, typer.Option("--nobody", help="Only you, from now on.")] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Say who may use a private image of yours: exactly those whom you name, and yourself.

    Who is not named any more loses it; a job that has it mounted keeps it until it ends.

    \b
    dray share group/secret:1.0    who may use it now
    dray share group/secret:1.0 --user ada --group lab
    dray share group/secret:1.0 --nobody
    """
    from cli import manage  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    readers = manage.Readers(tuple(user or ()), tuple(group or ()), nobody=nobody)
    raise typer.Exit(manage.share(Gateway(url), reference, system, readers, json=json))
