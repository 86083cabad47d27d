"""The command line of `shifterimg`, as the original takes it and its help describes it."""

import getopt
import grp
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cli.errors import UsageError
from cli.shifterimg.conf import TYPES

MODES: Final = ("images", "lookup", "pull", "pullnb", "login", "expire", "autoexpire")
NEEDS_IMAGE: Final = frozenset({"lookup", "pull", "pullnb", "expire"})
USAGE: Final = """Usage:
 shifterimg [options] <mode> <type:tag>

    Mode: images, lookup, pull, pullnb, login, expire, or autoexpire

Options:
 --user/-u <list>    List of users allowed to access a private image
 --group/-g <list>   List of groups allowed to access a private image
 --verbose/-v        Verbose output
 --help/-h           Display this help

Note: the --user and --group options are only relevant for image pulls.
A private image is yours alone unless they say more.

Exit codes: 0 done; 1 not done, with the reason on stderr.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `what` is an image, or the registry of a login."""

    mode: str
    what: str | None = None
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()
    verbose: bool = False


def parse_options(arguments: Sequence[str]) -> Options | None:
    """None: help was asked for."""
    try:
        given, rest = getopt.gnu_getopt(
            list(arguments), "hvu:g:", ["help", "verbose", "user=", "group="]
        )
    except getopt.GetoptError as exc:
        raise UsageError(exc.msg) from exc
    uids: list[int] = []
    gids: list[int] = []
    verbose = False
    for option, value in given:
        if option in {"-h", "--help"}:
            return None
        if option in {"-v", "--verbose"}:
            verbose = True
        elif option in {"-u", "--user"}:
            uids += _ids(value, _uid, "user")
        else:
            gids += _ids(value, _gid, "group")
    if not rest:
        raise UsageError(f"say what to do: {', '.join(MODES)}")
    mode, what = rest[0], rest[1] if len(rest) > 1 else None
    if mode not in MODES:
        raise UsageError(f"there is no mode '{mode}': use one of {', '.join(MODES)}")
    if mode in NEEDS_IMAGE and not what:
        raise UsageError(f"name an image: shifterimg {mode} ubuntu:24.04")
    return Options(mode, what, tuple(uids), tuple(gids), verbose)


def parse_image(text: str, default_type: str) -> tuple[str, str]:
    """`docker:ubuntu:24.04` is a type and a name; without a known type it is all name."""
    itype, colon, name = text.partition(":")
    if colon and itype in TYPES:
        if not name:
            raise UsageError(f"after '{itype}:' there is no image's name")
        return itype, name
    return default_type, text


def _ids(text: str, resolve: Callable[[str], int], what: str) -> list[int]:
    found: list[int] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(resolve(name))
        except KeyError:
            if not (name.isascii() and name.isdigit()):
                # The original leaves such a name out, and its owner never learns why.
                raise UsageError(f"there is no {what} '{name}' on this machine") from None
            found.append(int(name))
    return found


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid
