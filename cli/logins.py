"""`dray login`, `dray logout`, `dray logins`: registries that want to know who pulls."""

import getpass
import os
import sys
from typing import Final
from urllib.parse import quote

from cli import show
from cli.answers import read_time, reading
from cli.docker_logins import docker_login
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.tables import PLAIN, Column, Style, table

DOCKER_HUB: Final = "docker.io"
MAX_PASSWORD: Final = 8 << 10


def login(
    gateway: Gateway,
    registry: str | None,
    username: str | None,
    *,
    stdin: bool,
    docker: bool,
    json: bool,
) -> int:
    """The gateway asks the registry before it answers; what that refuses is not kept."""
    if docker and (stdin or username is not None):
        raise UsageError(
            "--from-docker brings user name and password: leave --username and --password-stdin out"
        )
    gateway.check_private()
    if docker:
        kept = docker_login(registry)
        body: Json = {"username": kept.username, "password": _bounded(kept.password)}
    else:
        name = username or _asked_for_name(registry, stdin=stdin)
        body = {"username": name, "password": _password(name, registry, stdin=stdin)}
    if registry is not None:
        body["registry"] = registry
    raw = gateway.call("POST", "/logins", body=body).body
    if json:
        show.document(raw)
        return 0
    with reading("a login"):
        where, who, ends = raw["registry"], raw["username"], read_time(raw["expires_at"])
    print(
        f"{show.plain(where)} takes {show.plain(who)}; kept until {ends:%Y-%m-%d %H:%M %Z}, or "
        f"until: dray logout {show.plain(where)}"
    )
    return 0


def logout(gateway: Gateway, registry: str | None, *, json: bool) -> int:
    name = registry or DOCKER_HUB
    gateway.call("DELETE", f"/logins/{quote(name, safe='')}")
    if json:
        show.document({"registry": name})
    else:
        print(f"Logged out of {show.plain(name)}. Images that you pulled stay.")
    return 0


def logins(gateway: Gateway, style: Style = PLAIN, *, json: bool) -> int:
    found = gateway.items("/logins")
    if json:
        show.document({"items": found})
        return 0
    with reading("the logins"):
        rows = [
            (
                str(each["registry"]),
                str(each["username"]),
                show.age(read_time(each["checked_at"])),
                f"{read_time(each['expires_at']):%Y-%m-%d %H:%M %Z}",
            )
            for each in found
        ]
    columns = (
        Column("REGISTRY", worth=9, elastic=True),
        Column("USER", worth=8, elastic=True),
        Column("CHECKED", worth=3),
        Column("UNTIL", worth=6),
    )
    table(columns, rows, "You are logged in to no registry: dray login REGISTRY", style)
    return 0


def _asked_for_name(registry: str | None, *, stdin: bool) -> str:
    if stdin or not sys.stdin.isatty():
        raise UsageError("who shall be logged in? give --username")
    print(f"User name at {show.plain(registry or DOCKER_HUB)}: ", end="", file=sys.stderr)
    sys.stderr.flush()
    name = sys.stdin.readline().strip()
    if not name:
        raise UsageError("no user name was given")
    return name


def _password(name: str, registry: str | None, *, stdin: bool) -> str:
    """Never an argument, which everybody on the machine can see."""
    if stdin:
        content = sys.stdin.buffer.read(MAX_PASSWORD + 3)
        try:
            # What `echo` and editors add is no part of it.
            password = content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise UsageError("the password on stdin is no UTF-8 text") from None
    elif _terminal():
        prompt = f"Password of {show.plain(name)} at {show.plain(registry or DOCKER_HUB)}: "
        password = getpass.getpass(prompt)
    else:
        raise UsageError(
            "there is no terminal to ask for the password: pipe it in with --password-stdin"
        )
    return _bounded(password)


def _bounded(password: str) -> str:
    if not password:
        raise UsageError("the password is empty")
    if len(password.encode()) > MAX_PASSWORD:
        raise UsageError(f"the password is longer than {MAX_PASSWORD} bytes")
    return password


def _terminal() -> bool:
    """The one that we belong to: stdin may lead elsewhere."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
