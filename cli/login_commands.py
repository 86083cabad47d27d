"""What the commands about registries' logins understand."""

from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, NoHeader, Quiet, Url

commands = typer.Typer(rich_markup_mode=None)

Registry = Annotated[
    str | None,
    typer.Argument(
        metavar="REGISTRY",
        help="registry.example.org, or host:5000. Default: docker.io.",
        show_default=False,
    ),
]


@commands.command(epilog=EXIT_CODES, short_help="Log in to a registry, for pulls from it.")
def login(
    registry: Registry = None,
    username: Annotated[
        str | None,
        typer.Option("--username", "-u", metavar="NAME", help="As the registry knows you."),
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password, or token, from stdin.")
    ] = False,
    from_docker: Annotated[
        bool,
        typer.Option(
            "--from-docker",
            help="As docker is logged in there: by ~/.docker/config.json and its helpers.",
        ),
    ] = False,
    url: Url = LOCAL_GATEWAY,
    json: Json = False,
) -> None:
    """Log in to a registry, so that you can pull what it does not give to everybody.

    The registry is asked at once whether it takes the password. The gateway keeps it sealed, for
    your pulls alone, and forgets it when the login expires or at `dray logout`.

    \b
    dray login registry.example.org -u ada
    dray login --password-stdin -u ada < ~/.hub-token
    dray login --from-docker ghcr.io
    """
    from cli import logins as run  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(
        run.login(
            Gateway(url),
            registry,
            username,
            stdin=password_stdin,
            docker=from_docker,
            json=json,
        )
    )


@commands.command(epilog=EXIT_CODES)
def logout(registry: Registry = None, url: Url = LOCAL_GATEWAY, json: Json = False) -> None:
    """Have the gateway forget a login.

    \b
    dray logout registry.example.org
    """
    from cli import logins as run  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(run.logout(Gateway(url), registry, json=json))


@commands.command(epilog=EXIT_CODES)
def logins(
    url: Url = LOCAL_GATEWAY,
    no_header: NoHeader = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List the registries that you are logged in to.

    \b
    dray logins
    dray logins -q | xargs -n 1 dray logout
    """
    from cli import logins as run  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415
    from cli.tables import Style  # noqa: PLC0415

    style = Style(header=not no_header, quiet=quiet)
    raise typer.Exit(run.logins(Gateway(url), style, json=json))
