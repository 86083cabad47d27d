"""What `dray hook` understands: the commands that schedulers call, not people."""

from pathlib import Path
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.hook_options import (
    Gid,
    Images,
    Job,
    JobSystem,
    Modules,
    Node,
    Nodes,
    Pulls,
    Socket,
    Spool,
    State,
    Strict,
    Uid,
    Volumes,
    Wait,
)
from cli.hook_stage_command import stage
from cli.options import System, Url

hook_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="What a scheduler's hooks call: at submission, allocation and end, and on each node.\n\n"
    "\b\ndray hook submit --image=ubuntu:24.04",
)
SUBMIT_CODES = (
    "Exit codes: 0 the job can have it; 1 it cannot, and why is said; 2 wrong usage; 3 no gateway "
    "answers."
)
HOOK_CODES = (
    "Exit codes: 0, also on trouble, which is logged; with --strict as for other commands: 1, 2, 3."
)


@hook_app.command(epilog=SUBMIT_CODES, short_help="Pin a job's images before it is queued.")
def submit(
    image: Annotated[
        str, typer.Option("--image", metavar="REF[,REF]", help="What the job runs in.")
    ] = "",
    volume: Annotated[
        str, typer.Option("--volume", metavar="FROM:TO[;FROM:TO]", help="What it finds there.")
    ] = "",
    module: Annotated[
        str, typer.Option("--module", metavar="NAME[,NAME]", help="What the site adds.")
    ] = "",
    if_missing: Annotated[
        str,
        typer.Option(
            "--if-missing",
            metavar="pull|wait|fail",
            help="Of an image that is not READY: start its pull, wait for it, or refuse the job.",
        ),
    ] = "wait",
    url: Url = LOCAL_GATEWAY,
    system: System = None,
) -> None:
    """Look up what a job wants to run in, and print what its environment needs to hold.

    Each line is NAME=VALUE: DRAY_IMAGE, DRAY_SYSTEM, DRAY_IMAGE_ID, DRAY_IMAGES, DRAY_PULLS,
    DRAY_VOLUMES and DRAY_MODULES, as far as they have a value. The SPANK plugin calls this with the
    options of sbatch, salloc and srun.

    \b
    dray hook submit --image=ubuntu:24.04 --volume=/scratch/me:/data
    """
    from typing import cast, get_args  # noqa: PLC0415

    from cli.errors import UsageError  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.hook_guard import in_one_line  # noqa: PLC0415
    from cli.hook_submit import Missing, Submission  # noqa: PLC0415
    from cli.hook_submit import submit as run  # noqa: PLC0415

    if if_missing not in get_args(Missing):
        raise UsageError(f"--if-missing is pull, wait or fail, and not {if_missing!r}")
    wanted = Submission(image, volume, module, system, cast("Missing", if_missing))
    with in_one_line():
        found = run(Gateway(url), wanted)
    for name, value in found.items():
        print(f"{name}={value}")


@hook_app.command(epilog=HOOK_CODES, short_help="Announce a job that has its nodes.")
def allocate(
    job: Job = "",
    nodes: Nodes = "",
    uid: Uid = None,
    images: Images = "",
    pulls: Pulls = "",
    wait: Wait = 30.0,
    spool: Spool = Path("/var/spool/dray"),
    strict: Strict = False,
    url: Url = LOCAL_GATEWAY,
    system: JobSystem = None,
) -> None:
    """Announce a job, so that its nodes have its images mounted before it begins.

    For PrologSlurmctld, and what other schedulers have in its place. A job without images is none
    of ours. What `submit` left to be pulled is waited for first.

    \b
    dray hook allocate --job 17 --nodes 'nid[001-128]' --uid 1000 --images "$DRAY_IMAGES"
    """
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.hook_guard import harmless, within  # noqa: PLC0415
    from cli.hook_job import Allocation  # noqa: PLC0415
    from cli.hook_job import allocate as run  # noqa: PLC0415
    from cli.hook_notes import Notes  # noqa: PLC0415
    from cli.job_images import read_images, read_pulls  # noqa: PLC0415

    def work() -> None:
        ids = tuple(image.image_id for image in read_images(images))
        wanted = Allocation(job, nodes, ids, read_pulls(pulls), uid, system or None)
        if wanted.images or wanted.pulls:
            with within(wait, "announcing the job"):
                run(Gateway(url), wanted, Notes(spool))

    raise typer.Exit(harmless(work, strict=strict))


@hook_app.command(epilog=HOOK_CODES, short_help="Tell that a job has ended.")
def release(
    job: Job = "",
    wait: Wait = 20.0,
    spool: Spool = Path("/var/spool/dray"),
    strict: Strict = False,
    url: Url = LOCAL_GATEWAY,
) -> None:
    """Tell that a job has ended, so that its nodes give its images back.

    For EpilogSlurmctld, and what other schedulers have in its place. Also of a job that was never
    announced, and again and again. If no gateway answers, the next hook that finds one tells it.

    \b
    dray hook release --job 17
    """
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.hook_guard import harmless, within  # noqa: PLC0415
    from cli.hook_job import release as run  # noqa: PLC0415
    from cli.hook_notes import Notes  # noqa: PLC0415

    def work() -> None:
        with within(wait, "telling that the job has ended"):
            run(Gateway(url), job, Notes(spool))

    raise typer.Exit(harmless(work, strict=strict))


@hook_app.command(epilog=HOOK_CODES, short_help="Have a job's images mounted on this node.")
def prolog(
    job: Job = "",
    uid: Uid = None,
    gid: Gid = None,
    images: Images = "",
    pulls: Pulls = "",
    volumes: Volumes = "",
    modules: Modules = "",
    wait: Wait = 60.0,
    node: Node = "",
    socket: Socket = "",
    state: State = Path("/run/dray/slurm"),
    strict: Strict = False,
    url: Url = LOCAL_GATEWAY,
) -> None:
    """Have a job's images mounted on this node, and leave word for the job of how it went.

    For Prolog, as root. It asks the node's agent alone, unless a pull has failed. The job begins in
    any case; if it has no image, the SPANK plugin tells its user why and ends it.

    \b
    dray hook prolog --job 17 --uid 1000 --images "$SPANK_DRAY_IMAGES" --wait 30
    """
    from cli.agent import Whose  # noqa: PLC0415
    from cli.hook_guard import harmless, within  # noqa: PLC0415
    from cli.hook_node import Place, Wanted  # noqa: PLC0415

    def work() -> None:
        wanted = Wanted(images, pulls, volumes, modules)
        with within(wait + 1, "preparing the job"):
            Place(node, socket, state).prolog(job, Whose(uid, gid), wanted, url, wait)

    raise typer.Exit(harmless(work, strict=strict))


@hook_app.command(epilog=HOOK_CODES, short_help="Give a job's images on this node back.")
def epilog(
    job: Job = "",
    wait: Wait = 30.0,
    node: Node = "",
    socket: Socket = "",
    state: State = Path("/run/dray/slurm"),
    strict: Strict = False,
) -> None:
    """Have nothing of a job mounted on this node any more.

    For Epilog, as root. If no agent answers, the next hook on this node that finds one tells it.

    \b
    dray hook epilog --job 17
    """
    from cli.hook_guard import harmless, within  # noqa: PLC0415
    from cli.hook_node import Place  # noqa: PLC0415

    def work() -> None:
        with within(wait, "ending the job"):
            Place(node, socket, state).epilog(job, wait)

    raise typer.Exit(harmless(work, strict=strict))


hook_app.command(epilog=SUBMIT_CODES, short_help="Stage a pending job's images in.")(stage)
