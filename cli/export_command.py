"""What `dray export` understands."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, Reference, System, Url

commands = typer.Typer(rich_markup_mode=None)


class Format(StrEnum):
    """What to make of it."""

    SQUASHFS = "squashfs"
    OCI = "oci"


class Compression(StrEnum):
    """Of the layer."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


STDOUT: Final = "-"


@commands.command(epilog=EXIT_CODES, short_help="Make a file of an image: squashfs, or OCI layout.")
def export(
    reference: Reference,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="What to write, or the directory to write it to; - is stdout. An OCI layout is "
            "one file if this ends with .tar, else a directory. Default: by the image's name, "
            "here.",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", "-f", metavar="FORMAT", help="squashfs or oci.")
    ] = Format.SQUASHFS,
    compression: Annotated[
        Compression,
        typer.Option(metavar="gzip|zstd|none", help="Of an OCI layout's layer."),
    ] = Compression.GZIP,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    json: Json = False,
) -> None:
    """Make a file of an image that is READY and that you may use.

    As a squashfs it is the very file that nodes mount. As an OCI layout, which podman, skopeo and
    docker load, it is one layer with all files, and the image's config; its registry's layers are
    not kept here. Every byte is checked. Where the cluster's file system is seen and the file may
    be read, it is read there, else the gateway gives it. After a broken connection, or Ctrl-C, the
    same command goes on where it was.

    \b
    dray export ubuntu:24.04
    dray export group/solver:2.1 -o solver.squashfs
    dray export --format oci custom:solver:2.1 -o solver.tar && podman load -i solver.tar
    dray export -o - ubuntu:24.04 | ssh elsewhere 'cat > ubuntu.squashfs'
    """
    from cli.export import ExportWish  # noqa: PLC0415
    from cli.export import export as run  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    wish = ExportWish(
        reference,
        system,
        output,
        oci=format_ is Format.OCI,
        compression=compression.value,
        force=force,
    )
    raise typer.Exit(run(Gateway(url), wish, json=json))
