"""What `dray inspect` understands; `cli.main` lists it, and nothing heavy is imported before."""

from pathlib import Path
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY


def inspect(
    image: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE",
            help="A squashfs file, or what a gateway knows: a reference or an image's id.",
            show_default=False,
        ),
    ],
    check: Annotated[
        bool,
        typer.Option("--check", help="Read all of a file, and say whether every byte is right."),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of a file: the pack store whose images count as sharing its layers. Default: "
            "the cache of your own `dray convert`.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(
            "--url", envvar="DRAY_URL", metavar="URL[,URL]", help="The gateway, for what it knows."
        ),
    ] = LOCAL_GATEWAY,
    system: Annotated[
        str | None,
        typer.Option(
            "--system", "-s", metavar="SYSTEM", help="The cluster, where there is more than one."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show what an image is made of: its layers, what they share with others, what in them is dead.

    A file needs no service: every image that Dray makes says what it is at its end.

    SIZE is a layer's data in the image; DEAD of it is what upper layers delete or overwrite; LEFT
    OUT is dead too, but not in the image; PIECES are the parts that the layer lies there in; OTHERS
    is how many other images have it.

    \b
    dray inspect ubuntu:24.04
    dray inspect --check ./ubuntu.squashfs
    dray inspect --json ubuntu:24.04 | jq .totals
    """
    from cli.inspect import Wish  # noqa: PLC0415
    from cli.inspect import inspect as run  # noqa: PLC0415

    raise typer.Exit(run(Wish(image, url, system, cache, check=check), json=json))
