"""What the commands about oneself understand: who the gateway takes one for, and tokens."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.defaults import LOCAL_GATEWAY
from cli.errors import EXIT_CODES
from cli.options import Json, Url

commands = typer.Typer(rich_markup_mode=None)


class ScopeName(StrEnum):
    """As shared.api has them."""

    READ = "read"
    PULL = "pull"
    ADMIN = "admin"


@commands.command(epilog=EXIT_CODES, short_help="Say who the gateway takes you for.")
def whoami(url: Url = LOCAL_GATEWAY, json: Json = False) -> None:
    """Say who the gateway takes you for, how it knows, and what you may do.

    On the gateway's own machine its socket tells who you are. Elsewhere MUNGE does, where this
    machine has it, or a token in DRAY_TOKEN or in the file that DRAY_TOKEN_FILE names. Otherwise
    you are nobody in particular, who sees public images only.

    \b
    dray whoami
    dray whoami --json | jq -r .name
    """
    from cli import account  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    raise typer.Exit(account.whoami(Gateway(url), json=json))


@commands.command(epilog=EXIT_CODES, short_help="Make a token for a dashboard or a program.")
def token(
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option(
            "--scope",
            metavar="read|pull|admin",
            help="What it is good for; each includes those before it. Default: read.",
        ),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="NAME", help="A service account instead of yourself; for admins."
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="For how long: 90s, 30m, 12h, 1d.")
    ] = "1h",
    url: Url = LOCAL_GATEWAY,
    json: Json = False,
) -> None:
    """Make a token, with which a dashboard or a program is you, or a service account, for a while.

    Whoever has it can use it, and it cannot be taken back: keep it short, and out of command
    lines. It is printed alone on stdout. Programs read it from DRAY_TOKEN or DRAY_TOKEN_FILE, and
    send it as `Authorization: Bearer TOKEN`, over https only.

    \b
    (umask 077; dray token > ~/.dray-token)
    dray token --scope pull --expires 12h
    dray token --scope read --for grafana --expires 1d
    """
    from cli import account  # noqa: PLC0415
    from cli.gateway import Gateway  # noqa: PLC0415

    scopes = [each.value for each in scope or [ScopeName.READ]]
    raise typer.Exit(account.token(Gateway(url), scopes, service, expires, json=json))
