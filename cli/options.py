"""Arguments and options that several commands have; nothing here does anything."""

from pathlib import Path
from typing import Annotated

import typer

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="An image as you would write it for docker: ubuntu:24.04, host:5000/group/name:tag, "
        "name@sha256:…",
        show_default=False,
    ),
]
References = Annotated[
    list[str],
    typer.Argument(metavar="REF...", help="Images as for `dray pull`.", show_default=False),
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="DRAY_URL",
        metavar="URL[,URL]",
        help="The gateway; of several, the first that answers is used.",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system", "-s", metavar="SYSTEM", help="The cluster, where the site has more than one."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="Print the rows alone.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only what names each: one per line.")
]
Socket = Annotated[
    Path | None,
    typer.Option(
        "--socket",
        envvar="DRAY_SOCKET",
        metavar="FILE",
        help="The node agent's socket. Default: the first of /run/dray/agent.sock, "
        "/var/lib/dray/agent/agent.sock and that of your own `dray up` where one answers.",
        show_default=False,
    ),
]
Users = Annotated[
    list[str] | None,
    typer.Option(
        "--user",
        "-u",
        metavar="USER",
        help="A user, by name or number, who may use it besides you; again for more.",
        show_default=False,
    ),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        "-g",
        metavar="GROUP",
        help="A group, by name or number, whose members may use it; again for more.",
        show_default=False,
    ),
]
