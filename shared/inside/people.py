"""Who a program in an image finds when it asks who there is: its user, the user's groups, root.

A site's users come from directories that no image can ask; and an image has no use for all of them.
"""

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

NSSWITCH: Final = "passwd: files\ngroup: files\nhosts: files dns\n"
_NOBODY: Final = 65534
_MOST_GROUPS: Final = 1024


@dataclass(frozen=True, slots=True)
class Person:
    """One user, as this machine knows them."""

    uid: int
    gid: int
    gids: tuple[int, ...]
    name: str
    home: str
    shell: str = "/bin/sh"

    @classmethod
    def of(cls, uid: int, gid: int | None, gids: Iterable[int]) -> "Person":
        """Whom no directory knows is called by the number, and lives nowhere. Blocks.

        Without `gid` the first group is the one that this machine knows for them.
        """
        known = tuple(gids)
        try:
            found = pwd.getpwuid(uid)
        except KeyError:
            first = min(known, default=_NOBODY) if gid is None else gid
            return cls(uid, first, _groups(first, known), f"user{uid}", "/")
        first = found.pw_gid if gid is None else gid
        home = found.pw_dir if found.pw_dir.startswith("/") else "/"
        shell = found.pw_shell or "/bin/sh"
        return cls(uid, first, _groups(first, known), found.pw_name, home, shell)

    @classmethod
    def here(cls) -> "Person":
        """Who runs this process."""
        return cls.of(os.getuid(), os.getgid(), os.getgroups())


def _groups(first: int, others: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys((first, *others)))[:_MOST_GROUPS]


def passwd(person: Person) -> str:
    lines = {
        0: "root:x:0:0:root:/root:/bin/sh",
        _NOBODY: f"nobody:x:{_NOBODY}:{_NOBODY}:nobody:/nonexistent:/bin/false",
        person.uid: _line(person.name, "x", person.uid, person.gid, "", person.home, person.shell),
    }
    return "\n".join(lines.values()) + "\n"


def group(person: Person) -> str:
    """Asks the machine for the groups' names. Blocks."""
    lines = {0: "root:x:0:", _NOBODY: f"nogroup:x:{_NOBODY}:"}
    for gid in person.gids:
        lines[gid] = _line(_group_name(gid), "x", gid, person.name if gid else "")
    return "\n".join(lines.values()) + "\n"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group{gid}"


def _line(*fields: object) -> str:
    """What a field must not hold would be another field, or another line."""
    return ":".join(str(field).translate({58: "_", 10: "_"}) for field in fields)
