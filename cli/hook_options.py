"""Options of `dray hook`; a scheduler's hooks find most of them in their environment."""

from pathlib import Path
from typing import Annotated

import typer

Job = Annotated[
    str,
    typer.Option("--job", envvar="SLURM_JOB_ID", metavar="ID",
                 help="The job's id.", show_default=False),
]  # fmt: skip
Uid = Annotated[
    int | None,
    typer.Option(
        "--uid", envvar="SLURM_JOB_UID", min=0, metavar="UID", help="Whose job it is, by number."
    ),
]
Images = Annotated[
    str,
    typer.Option("--images", envvar=["SPANK_DRAY_IMAGES", "DRAY_IMAGES"], metavar="LIST",
                 help="As `submit` printed DRAY_IMAGES.", show_default=False),
]  # fmt: skip
Pulls = Annotated[
    str,
    typer.Option("--pulls", envvar=["SPANK_DRAY_PULLS", "DRAY_PULLS"], metavar="LIST",
                 help="As `submit` printed DRAY_PULLS.", show_default=False),
]  # fmt: skip
Gid = Annotated[
    int | None,
    typer.Option(
        "--gid", envvar="SLURM_JOB_GID", min=0, metavar="GID", help="The user's group, by number."
    ),
]
Volumes = Annotated[
    str,
    typer.Option("--volumes", envvar=["SPANK_DRAY_VOLUME_PATHS", "DRAY_VOLUME_PATHS"],
                 metavar="LIST", help="As `submit` printed DRAY_VOLUME_PATHS.", show_default=False),
]  # fmt: skip
Modules = Annotated[
    str,
    typer.Option("--modules", envvar=["SPANK_DRAY_MODULES", "DRAY_MODULES"], metavar="LIST",
                 help="As `submit` printed DRAY_MODULES.", show_default=False),
]  # fmt: skip
Wait = Annotated[
    float,
    typer.Option(
        "--wait", min=1, max=86400, metavar="SECONDS",
        help="How long it may take in all.",
    ),
]  # fmt: skip
Strict = Annotated[bool, typer.Option("--strict", help="Tell trouble by the exit code, too.")]
Spool = Annotated[
    Path,
    typer.Option(
        "--spool", envvar="DRAY_HOOK_SPOOL", metavar="DIR",
        help="Where it notes whose end no gateway would hear of.",
    ),
]  # fmt: skip
State = Annotated[
    Path,
    typer.Option(
        "--state", envvar="DRAY_HOOK_STATE", metavar="DIR",
        help="Where it leaves word of each job's images; %n is the node's name.",
    ),
]  # fmt: skip
Node = Annotated[
    str,
    typer.Option("--node", envvar="SLURMD_NODENAME", metavar="NAME", help="What %n stands for.",
                 show_default=False),
]  # fmt: skip
Socket = Annotated[
    str,
    typer.Option(
        "--socket", envvar="DRAY_SOCKET", metavar="FILE",
        help="The node agent's socket; %n is the node's name. Default: the first usual one.",
        show_default=False,
    ),
]  # fmt: skip
Nodes = Annotated[
    str,
    typer.Option(
        "--nodes", envvar="SLURM_JOB_NODELIST", metavar="LIST", help="Such as nid[001-128]."
    ),
]
JobSystem = Annotated[
    str | None,
    typer.Option(
        "--system", "-s", envvar=["SPANK_DRAY_SYSTEM", "DRAY_SYSTEM"], metavar="SYSTEM",
        help="The cluster, where the site has more than one.",
    ),
]  # fmt: skip
