"""What `dray import` understands."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Groups, Json, System, Url, Users
from shared.formats import FORMATS

AUTO: Final = "auto"
Format = StrEnum("Format", {name: name for name in (AUTO, *FORMATS)})  # type: ignore[misc]
DEFAULT: Final = Format(AUTO)

commands = typer.Typer(rich_markup_mode=None)


@commands.command(
    "import",
    epilog=EXIT_CODES,
    short_help="Make an image of a file that you have.",
)
def import_file(
    path: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What docker save or podman save wrote, an OCI archive or layout, a squashfs, a "
            "tar or a tree of a root file system, a machine's disk; where the cluster's services "
            "can see it.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="What to call it: NAME or NAME:TAG.", show_default=False
        ),
    ],
    format_: Annotated[
        Format,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help=f"What the file is: {', '.join(FORMATS)}."
        ),
    ] = DEFAULT,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", metavar="NAME", help="Which one, of a file that holds several images."
        ),
    ] = None,
    user: Users = None,
    group: Groups = None,
    public: Annotated[
        bool, typer.Option("--public", help="For everybody, where the site lets you.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask for it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if the file has not changed.")
    ] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Make an image of a file of yours, and make it READY on the cluster.

    The file is read where the cluster's services run, with your own rights: it must lie on a file
    system that they see, too. The image is called custom:NAME:TAG, and is yours alone, and that of
    those whom you name. Importing an unchanged file again is READY at once; a changed one takes the
    old one's place. Ctrl-C stops only the watching.

    \b
    podman save -o solver.tar localhost/solver && dray import solver.tar solver:2.1
    dray run custom:solver:2.1 solver --version
    dray import --group lab dir:/scratch/ada/root tools:1
    dray import machine.qcow2 machine:1
    dray import --format oci-archive --image tool:2 both.tar tool:2
    """
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.imports import ImportWish, import_  # noqa: PLC0415
    from cli.people import group_ids, user_ids  # noqa: PLC0415

    wish = ImportWish(
        path,
        name,
        format=str(format_.value),
        image=image,
        system=system,
        public=public,
        force=force,
        uids=tuple(user_ids(user)) if user else None,
        gids=tuple(group_ids(group)) if group else None,
    )
    raise typer.Exit(import_(Gateway(url), wish, wait=not no_wait, json=json))
