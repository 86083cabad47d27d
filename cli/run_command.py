"""What `dray run` understands."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_NOT_RUN
from cli.options import Socket, Url
from cli.output import told
from shared.errors import DrayError

OF_THE_JOB: Final = "--"

commands = typer.Typer(rich_markup_mode=None)


class _RunCommand(TyperCommand):
    """With `--` instead of an image, which the parser would swallow."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        found, _, _ = self.make_parser(ctx).parse_args(list(args))
        words = [word for word in (found.get("reference"),) if isinstance(word, str)]
        words += found.get("command") or ()
        begin = len(args) - len(words)
        if begin and args[begin - 1] == OF_THE_JOB:
            args = [*args[:begin], OF_THE_JOB, *words]
        return super().parse_args(ctx, args)


@commands.command(
    cls=_RunCommand,
    context_settings={"allow_interspersed_args": False},
    epilog="Exit codes: those of the command; 125 when Dray could not start it, 126 when it "
    "cannot be executed, 127 when the image does not have it; 2 for a wrong option.",
)
def run(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="REF",
            help="An image that is READY; in a job that has one, -- (or nothing) means that.",
            show_default=False,
        ),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="CMD...", help="What to run; else what the image says."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="NAME[=VALUE]", help="Set, or take over from here, a variable."
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            "--env-file", metavar="FILE", help="Set the variables of its lines NAME=VALUE."
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            "--volume",
            "-V",
            metavar="FROM:TO[:ro]",
            help="Have a directory or file of this machine in the image; several with ';' between "
            "them, or the option again. In a job, besides the job's own.",
        ),
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option(
            "--module",
            "-m",
            metavar="NAME[,NAME]",
            help="What the site offers besides, such as mpich or gpu, in a job; instead of the "
            "job's own. none: nothing but what is named.",
        ),
    ] = None,
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", "-w", metavar="DIR", help="Where to run it, in the image."),
    ] = None,
    entrypoint: Annotated[
        str | None,
        typer.Option(metavar="PROGRAM", help="Instead of the image's own; '' for none."),
    ] = None,
    _interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="As it is anyway: stdin is the command's.")
    ] = False,
    _tty: Annotated[
        bool,
        typer.Option(
            "--tty", "-t", help="As it is anyway: so is your terminal. Slurm's: srun --pty."
        ),
    ] = False,
    url: Url = LOCAL_GATEWAY,
    system: Annotated[
        str | None,
        typer.Option(
            "--system", "-s", metavar="SYSTEM", help="The cluster. Default: that of this node."
        ),
    ] = None,
    socket: Socket = None,
    wait: Annotated[
        float,
        typer.Option(min=1, max=3600, metavar="SECONDS", help="How long to wait for the mount."),
    ] = 60.0,
) -> None:
    """Run a command inside an image, on this node, as yourself.

    The agent of this node mounts the image read-only, without setuid programs and device nodes,
    until the command has ended. The host's /proc and /sys, a small /dev, your home and the working
    directory come along; /tmp is empty, and its own.

    Of your environment HOME, USER, LOGNAME, TERM, LANG, LC_ALL, TZ and what schedulers, MPI and
    GPUs go by come along. Then the image's variables have their word, --env-file, -e, the modules
    and the site, each over those before.

    Options stand before the image; all that follows it, but for a first --, is the command. In a
    job that was submitted with --image, leave the image out: -- and a command run in the job's
    image, and no gateway is asked. Neither is it for others of the job's images, by their names.

    \b
    dray run alpine:3 cat /etc/os-release
    dray run -- hostname
    dray run -it --volume=/scratch/me/run1:/data:ro ubuntu:24.04 bash
    dray run -e OMP_NUM_THREADS=8 -w /scratch group/solver:2.1 -- solve --input case.h5
    """
    from cli.enter import EnterError  # noqa: PLC0415
    from cli.into_image import Target, run_in_image  # noqa: PLC0415
    from cli.run import Wish, read_env_file, wants  # noqa: PLC0415

    try:
        wish = Wish(
            name=reference or OF_THE_JOB,
            command=_without_separator(command or []),
            options=tuple(env or ()),
            file=read_env_file(env_file) if env_file else "",
            workdir=workdir,
            entrypoint=entrypoint,
        )
        target = Target(
            reference=None if reference == OF_THE_JOB else reference,
            wants=wants(volume or [], module or []),
            url=url,
            socket=socket,
            system=system,
            wait=wait,
        )
        run_in_image(target, wish)
    except EnterError as exc:
        code = told(exc, exc.exit_code)
    except DrayError as exc:
        code = told(exc, EXIT_NOT_RUN)
    raise typer.Exit(code)


def _without_separator(command: list[str]) -> tuple[str, ...]:
    """Many write `--` between the image and the command, as other tools have it."""
    return tuple(command[1:] if command[:1] == ["--"] else command)
