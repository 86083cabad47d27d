"""What `docker login` has kept of a registry: in Docker's configuration file, or with a helper.

Docker's names are used: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`, with `auths`,
`credHelpers` and `credsStore`. A helper is a program `docker-credential-NAME` in the PATH, asked as
Docker asks it: `get`, and the registry on its standard input.
"""

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cli import show
from cli.errors import CliError, UsageError

DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
"""Of Docker Hub, by its name of 2014."""
IDENTITY_TOKEN: Final = "<token>"  # noqa: S105 - a word, and no secret
"""The user name of an identity token, which stands where the password would."""
MAX_FILE: Final = 4 << 20
MAX_ANSWER: Final = 1 << 20
HELPER_SECONDS: Final = 30.0
_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# The words of all helpers, which Docker compares as well.
_NOT_FOUND: Final = "credentials not found in native keychain"


@dataclass(frozen=True, slots=True)
class Kept:
    """A login as Docker kept it."""

    username: str
    password: str = field(repr=False)


def docker_login(registry: str | None) -> Kept:
    """Docker's login to this registry; CliError if it has none."""
    path = _config_path()
    config = _read(path)
    named = show.plain(registry or "docker.io")
    host = (registry or "docker.io").lower()
    if helper := _helper(config, host, path):
        kept = _ask(helper, DOCKER_HUB_KEY if host in _HUB else host)
        # Docker itself keeps on looking, too: the file may be older than the helper.
        kept = kept or _in_file(config, host, path)
    else:
        kept = _in_file(config, host, path)
    if kept is None:
        with_helper = f" nor with docker-credential-{helper}" if helper else ""
        raise CliError(
            f"docker has no login to {named}: there is none in {path}{with_helper}; do `docker "
            f"login {named}` first, or leave --from-docker out"
        )
    return kept


def _config_path() -> Path:
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as exc:
        raise CliError(
            f"there is no {path}, where docker keeps its logins; DOCKER_CONFIG names another "
            "directory"
        ) from exc
    except OSError as exc:
        raise CliError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        config = json.loads(content) if len(content) <= MAX_FILE else None
    except ValueError:  # what it holds may be secret, and is in no message
        config = None
    if not isinstance(config, dict):
        raise CliError(f"{path} is no configuration file of docker's: JSON was expected")
    return config


def _helper(config: dict[str, Any], host: str, path: Path) -> str | None:
    """The program that keeps this registry's login."""
    own = config.get("credHelpers")
    named = None
    if isinstance(own, dict):
        found = {_host(key): value for key, value in own.items() if isinstance(key, str)}
        named = found.get(_host(host))
    named = named or config.get("credsStore")
    if not named:
        return None
    if not isinstance(named, str) or not _HELPER.fullmatch(named):
        raise CliError(f"{path} names a credential helper that cannot be the name of a program")
    return named


def _ask(helper: str, server: str) -> Kept | None:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        raise CliError(
            f"docker keeps this login with docker-credential-{helper}, which is not in your PATH"
        )
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            stdout=subprocess.PIPE,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        why = exc.strerror if isinstance(exc, OSError) else f"no answer in {HELPER_SECONDS:g} s"
        raise CliError(f"docker-credential-{helper} cannot be asked: {why}") from None
    answer = done.stdout[:MAX_ANSWER]
    if done.returncode != 0:
        # Helpers say what went wrong on stdout.
        said = answer.decode(errors="replace").strip()
        if said == _NOT_FOUND:
            return None
        raise CliError(
            f"docker-credential-{helper} does not give the login: {show.plain(said[:200]) or '?'}"
        )
    try:
        found = json.loads(answer)
        username, secret = found["Username"], found["Secret"]
    except (ValueError, TypeError, KeyError):  # it may quote the secret
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise CliError(f"docker-credential-{helper} answers with no login: is it of another tool?")
    return Kept(username or IDENTITY_TOKEN, secret)


def _in_file(config: dict[str, Any], host: str, path: Path) -> Kept | None:
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    # As it is written first: some keys are whole addresses.
    wanted = _host(host)
    matching = [key for key in auths if key == host] + [
        key for key in auths if _host(key) == wanted
    ]
    for key in matching:
        entry = auths[key]
        if isinstance(entry, dict) and (kept := _entry(entry, path)):
            return kept
    return None


def _entry(entry: dict[str, Any], path: Path) -> Kept | None:
    """What one entry holds; where a helper keeps the login, it holds nothing."""
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Kept(IDENTITY_TOKEN, identity)
    encoded = entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            pair = base64.b64decode(encoded, validate=True).decode().rstrip("\0")
        except (binascii.Error, UnicodeDecodeError):
            raise CliError(f"a login in {path} is damaged: do `docker login` again") from None
        username, _, password = pair.partition(":")
    else:
        username, password = (str(entry.get(name) or "") for name in ("username", "password"))
    if username and password:
        return Kept(username, password)
    if entry.get("registrytoken"):
        raise UsageError(
            f"{path} holds a token for this registry that nobody can renew: log in with a user "
            "name and a password or access token"
        )
    return None


def _host(key: str) -> str:
    """The host that an entry is for: keys may be whole addresses, with a path."""
    host = key.lower().partition("://")[2] or key.lower()
    host = host.partition("/")[0]
    return "docker.io" if host in _HUB else host
