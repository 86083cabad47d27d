"""What `dray convert` understands; `cli.main` lists it, and nothing heavy is imported before."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def _path(text: str) -> Path:
    # Path("") is the working directory: nobody who writes "$UNSET" means that.
    if not text:
        raise typer.BadParameter("it is empty")
    return Path(text)


class Owners(StrEnum):
    """Whose the image's files are."""

    IMAGE = "image"
    ROOT = "root"


class Setuid(StrEnum):
    """What becomes of setuid and setgid bits."""

    KEEP = "keep"
    STRIP = "strip"


class Devices(StrEnum):
    """What becomes of device nodes."""

    KEEP = "keep"
    DROP = "drop"


class Compression(StrEnum):
    """How blocks are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"


def convert(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="An image as for `dray pull`, or a file: ./image.tar, ./layout, "
            "docker-archive:PATH[:NAME], oci-archive:PATH[:NAME], oci:DIR[:NAME], tar:PATH, "
            "dir:PATH, squashfs:PATH, ext4:PATH, xfs:PATH, disk:PATH, qcow2:PATH, vmdk:PATH.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The squashfs file to make.", parser=_path, show_default=False
        ),
    ],
    owners: Annotated[
        Owners,
        typer.Option(
            metavar="image|root", help="Files belong to whom the image says, or all to root."
        ),
    ] = Owners.ROOT,
    setuid: Annotated[
        Setuid, typer.Option(metavar="keep|strip", help="Setuid and setgid bits.")
    ] = Setuid.STRIP,
    xattrs: Annotated[
        str | None,
        typer.Option(
            metavar="all|none|NAME,…",
            help="Extended attributes; a NAME that ends in a dot stands for all that begin so. "
            "Default: user.",
            show_default=False,
        ),
    ] = None,
    devices: Annotated[
        Devices, typer.Option(metavar="keep|drop", help="Device nodes.")
    ] = Devices.DROP,
    compression: Annotated[
        Compression, typer.Option(metavar="zstd|gzip", help="RHEL 8 kernels cannot mount zstd.")
    ] = Compression.ZSTD,
    level: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="1 to 22 for zstd, 1 to 9 for gzip. Default: 3.", show_default=False
        ),
    ] = None,
    block_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="A power of two, 4K to 1M. Default: 128K.", show_default=False
        ),
    ] = None,
    max_dead_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Data that upper layers hide is left out when it is more than this share of the "
            "image; 1 keeps all. Default: 0.15.",
            show_default=False,
        ),
    ] = None,
    platform: Annotated[
        str | None,
        typer.Option(
            metavar="OS/ARCH[/VARIANT]",
            help="Of an image for several. Default: this machine's.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=_path,
            help="Keeps converted layers for the next time. Default: $XDG_CACHE_HOME/dray, or "
            "~/.cache/dray.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="To compress each layer. Default: one per core.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="DRAY_CONFIG",
            metavar="FILE",
            help="Settings as of the services: their registries and limits count here too.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Convert an image to one squashfs file, here and now, without services and without root.

    The result is byte for byte what a system with the same options gets. OUT appears when it is
    whole and verified; until then an older one stays. Layers that are in the cache are not
    fetched again. Plain HTTP is spoken to registries on this machine, as Docker does.

    \b
    dray convert ubuntu:24.04 ubuntu.squashfs
    dray convert docker-archive:saved.tar:group/solver:2.1 solver.squashfs
    dray convert --owners image --xattrs all --compression gzip ./layout image.squashfs
    """
    from cli.convert import Wish  # noqa: PLC0415
    from cli.convert import convert as run  # noqa: PLC0415
    from cli.convert_options import Words, pack_options  # noqa: PLC0415
    from cli.defaults import own_cache_dir  # noqa: PLC0415
    from shared.config import load_settings  # noqa: PLC0415
    from shared.settings.types import this_platform  # noqa: PLC0415

    if max_dead_share is not None and not 0 <= max_dead_share <= 1:  # nan passes for a number
        raise typer.BadParameter("it is no number from 0 to 1", param_hint="'--max-dead-share'")
    words = Words(
        owners=owners,
        setuid=setuid,
        devices=devices,
        xattrs=xattrs,
        compression=compression,
        level=level,
        block_size=block_size,
    )
    wish = Wish(
        reference=reference,
        out=out,
        options=pack_options(words),
        max_dead_share=max_dead_share,
        platform=platform or this_platform(),
        cache=cache or own_cache_dir(),
        threads=threads or 0,
    )
    raise typer.Exit(run(wish, load_settings(config), json=json, quiet=quiet))
