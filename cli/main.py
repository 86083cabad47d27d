"""The `dray` command: what it understands. What it does stands in the module of each command.

Nothing heavy is imported before a command is known: a status command answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.convert_command import convert
from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_FAILED, EXIT_NOT_RUN, CliError, RefusedError
from cli.inspect_command import inspect
from cli.show import plain
from cli.store_command import store_app
from shared.errors import DrayError

EXIT_CODES = """Exit codes: 0 done; 1 the pull failed or the image is not there; 2 wrong usage;
3 no gateway or agent answers; 130 interrupted."""

app = typer.Typer(
    name="dray",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
queue_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(queue_app, name="queue", short_help="Show what is being pulled, and what failed.")
app.add_typer(store_app, name="store", short_help="Look after a pack store.")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="An image as you would write it for docker: ubuntu:24.04, host:5000/group/name:tag, "
        "name@sha256:…",
        show_default=False,
    ),
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


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"dray {version('dray')}")
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def dray(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Bring container images to a supercomputer, and run commands inside them.

    \b
    dray up                        start everything on this machine
    dray pull alpine:3             fetch an image, once for all nodes
    dray run alpine:3 cat /etc/os-release
    """


@app.command(epilog=EXIT_CODES, short_help="Fetch an image and make it READY on the cluster.")
def pull(
    reference: Reference,
    url: Url = LOCAL_GATEWAY,
    system: System = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask for it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Check what is placed; make it again if damaged.")
    ] = False,
    json: Json = False,
) -> None:
    """Fetch an image from its registry and make it READY on the cluster.

    Shows the bytes as they come. Ctrl-C stops only the watching: the pull goes on, and the same
    command joins it again. An image that has not changed is READY at once.

    \b
    dray pull ubuntu:24.04
    dray pull --no-wait registry.example.org:5000/group/solver:2.1
    dray pull --force ubuntu:24.04
    dray pull --json alpine:3 | jq -r .image.id
    """
    from cli.gateway import Gateway, PullWish  # noqa: PLC0415
    from cli.pull import pull as run  # noqa: PLC0415

    wish = PullWish(reference, system, force=force)
    raise typer.Exit(run(Gateway(url), wish, wait=not no_wait, json=json))


@app.command(epilog=EXIT_CODES)
def images(url: Url = LOCAL_GATEWAY, system: System = None, json: Json = False) -> None:
    """List the images that are READY.

    \b
    dray images
    dray images --json | jq -r .items[].reference
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(lists.images(Gateway(url), system, json=json))


@app.command(epilog=EXIT_CODES)
def lookup(
    reference: Reference, url: Url = LOCAL_GATEWAY, system: System = None, json: Json = False
) -> None:
    """Say what a reference stands for: id, size, digest, what it runs.

    \b
    dray lookup ubuntu:24.04
    dray lookup --json ubuntu:24.04 | jq -r .env[]
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(lists.lookup(Gateway(url), reference, system, json=json))


@queue_app.callback(epilog=EXIT_CODES)
def queue(
    context: typer.Context, url: Url = LOCAL_GATEWAY, system: System = None, json: Json = False
) -> None:
    """Show the pulls that are under way, and those that failed, with the reason.

    \b
    dray queue
    dray queue dead                the events that no service could digest
    dray queue dead --replay ID    try one of them again
    """
    if context.invoked_subcommand is not None:
        context.obj = url
        return
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(lists.queue(Gateway(url), system, json=json))


@queue_app.command(
    "dead", epilog=EXIT_CODES, short_help="Show, or replay, the events that failed for good."
)
def queue_dead(
    context: typer.Context,
    replay: Annotated[
        str | None, typer.Option(metavar="ID", help="Send this one to its queue again.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL[,URL]", help="As for `dray queue`.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the events that failed again and again, or replay one when its cause is gone.

    \b
    dray queue dead
    dray queue dead --replay ID
    """
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    gateway = Gateway(url or context.obj)
    if replay is not None:
        raise typer.Exit(lists.replay(gateway, replay, json=json))
    raise typer.Exit(lists.dead_letters(gateway, json=json))


@app.command(epilog=EXIT_CODES, short_help="Show the nodes' agents and how they mount.")
def nodes(url: Url = LOCAL_GATEWAY, json: Json = False) -> None:
    """Show the nodes' agents: how each mounts images, and when it was last heard."""
    from cli import lists  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(lists.nodes(Gateway(url), json=json))


@app.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Exit codes: those of the command; 125 when Dray could not start it, 126 when it "
    "cannot be executed, 127 when the image does not have it; 2 for a wrong option.",
)
def run(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="An image that is READY.", show_default=False)
    ],
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
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", "-w", metavar="DIR", help="Where to run it, in the image."),
    ] = None,
    entrypoint: Annotated[
        str | None,
        typer.Option(metavar="PROGRAM", help="Instead of the image's own; '' for none."),
    ] = None,
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
    until the command has ended. The host's /proc, /sys and /dev, your home and the working
    directory come along where the image has a place for them; /tmp is empty, and its own.

    Of your environment HOME, USER, LOGNAME, TERM, LANG, LC_ALL and TZ come along; the image's
    variables replace them, and those of -e replace both.

    Options stand before the image; all that follows it, but for a first --, is the command.

    \b
    dray run alpine:3 cat /etc/os-release
    dray run -e OMP_NUM_THREADS=8 -w /scratch group/solver:2.1 -- solve --input case.h5
    """
    from cli.enter import EnterError  # noqa: PLC0415
    from cli.run import Wish, run_in_image  # noqa: PLC0415

    wish = Wish(
        reference=reference,
        system=system,
        command=_without_separator(command or []),
        options=tuple(env or ()),
        workdir=workdir,
        entrypoint=entrypoint,
    )
    try:
        run_in_image(url, socket, wish, wait)
    except EnterError as exc:
        code = _told(exc, exc.exit_code)
    except DrayError as exc:
        code = _told(exc, EXIT_NOT_RUN)
    raise typer.Exit(code)


app.command(
    short_help="Make a squashfs file of an image, without services.",
    epilog="Exit codes: 0 done; 1 failed, with the reason; 2 wrong usage; 130 and 143 interrupted.",
)(convert)
app.command(
    short_help="Show an image's layers, sharing and dead data.",
    epilog="Exit codes: 0 done; 1 the image is not there, or is damaged; 2 wrong usage; "
    "3 no gateway answers.",
)(inspect)


@app.command(short_help="Start all services on this machine.")
def up(
    config: Annotated[
        Path | None,
        typer.Option(envvar="DRAY_CONFIG", metavar="FILE", help="YAML or TOML settings."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="For the gateway. Default: 127.0.0.1:7600."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For everything it keeps. Default: /var/lib/dray as root, else "
            "~/.local/share/dray.",
        ),
    ] = None,
) -> None:
    """Start gateway, converter, distributor and node agent in one process, until Ctrl-C.

    Nothing else is needed: events stay in the process, the catalog is an SQLite file. When all is
    up it says what to export where other commands would not find it. Beyond one machine the same
    services run as processes of their own over RabbitMQ and MongoDB.

    \b
    dray up
    dray up --listen 127.0.0.1:7700 --data /scratch/$USER/dray
    """
    from cli.up import up as run_all  # noqa: PLC0415

    run_all(config, listen, data)


def _without_separator(command: list[str]) -> tuple[str, ...]:
    """Many write `--` between the image and the command, as other tools have it."""
    return tuple(command[1:] if command[:1] == ["--"] else command)


def _told(exc: DrayError, code: int) -> int:
    # It may quote what an image, a registry or an archive says.
    reason = exc.problem if isinstance(exc, RefusedError) else exc.code
    print(f"dray: {plain(exc.message)} [{plain(reason)}]", file=sys.stderr)
    return code


def main() -> None:
    """The console script."""
    try:
        app()
    except DrayError as exc:
        sys.exit(_told(exc, exc.exit_code if isinstance(exc, CliError) else EXIT_FAILED))
