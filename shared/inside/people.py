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
    def of(cls, uid: int, gid: int, gids: Iterable[int]) -> "Person":
        """Whom no directory knows is called by the number, and lives nowhere. Blocks."""
        groups = tuple(dict.fromkeys((gid, *gids)))[:_MOST_GROUPS]
        try:
            found = pwd.getpwuid(uid)
        except KeyError:
            return cls(uid, gid, groups, f"user{uid}", "/")
        home = found.pw_dir if found.pw_dir.startswith("/") else "/"
        return cls(uid, gid, groups, found.pw_name, home, found.pw_shell or "/bin/sh")

    @classmethod
    def here(cls) -> "Person":
        """Who runs this process."""
        return cls.of(os.getuid(), os.getgid(), os.getgroups())


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
