"""Users and groups: named on the command line, numbers for the gateway, and back for people.

Names are looked up on this machine, where the user writes them.
"""

import grp
import pwd
from collections.abc import Callable, Iterable, Sequence

from cli.errors import UsageError

LARGEST = (1 << 32) - 2


def user_ids(words: Iterable[str]) -> list[int]:
    return [_id(word, "user", lambda name: pwd.getpwnam(name).pw_uid) for word in words]


def group_ids(words: Iterable[str]) -> list[int]:
    return [_id(word, "group", lambda name: grp.getgrnam(name).gr_gid) for word in words]


def users(ids: Sequence[int]) -> str:
    """Their names, as far as they have some here."""
    return _named(ids, lambda uid: pwd.getpwuid(uid).pw_name)


def groups(ids: Sequence[int]) -> str:
    return _named(ids, lambda gid: grp.getgrgid(gid).gr_name)


def _id(word: str, kind: str, find: Callable[[str], int]) -> int:
    if word.isascii() and word.isdecimal():
        number = int(word[:20])
        if number > LARGEST:
            raise UsageError(f"--{kind} {word}: there is no such id; the largest is {LARGEST}")
        return number
    try:
        return find(word)
    except (KeyError, ValueError):
        raise UsageError(
            f"--{kind} {word!r}: this machine knows no {kind} of that name; check it, or write "
            "the number"
        ) from None


def _named(ids: Sequence[int], find: Callable[[int], str]) -> str:
    names = []
    for number in ids:
        try:
            names.append(find(number))
        except (KeyError, OverflowError):
            names.append(str(number))
    return ", ".join(names) or "nobody"
