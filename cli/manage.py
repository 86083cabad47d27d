"""What owners do with images: take them away, pin them, say who may use them."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli import show
from cli.answers import read_time, reading
from cli.errors import EXIT_FAILED, RefusedError, UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.output import told
from cli.people import group_ids, groups, user_ids, users


@dataclass(frozen=True, slots=True)
class Readers:
    """Whom somebody named, in their words; `nobody` says that it is nobody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    nobody: bool = False


@dataclass(frozen=True, slots=True)
class Which:
    """Images of a system; operators name whose, where it is neither their own nor the site's."""

    images: Sequence[str]
    system: str | None = None
    owner: str | None = None


def remove(gateway: Gateway, which: Which, *, json: bool) -> int:
    def said(reference: Json) -> str:
        return f"{reference['reference']} is gone from {reference['system']}"

    code = _each(gateway, which, "DELETE", "", said, json=json)
    if not json and not code:
        print("Jobs that have it mounted keep it until they end; its file goes then.")
    return code


def pin(gateway: Gateway, which: Which, *, pinned: bool, json: bool) -> int:
    def said(reference: Json) -> str:
        name, ends = reference["reference"], reference["expires_at"]
        if reference["pinned"]:
            return f"{name} stays on {reference['system']} until somebody unpins it"
        if ends is None:
            return f"{name} is not pinned; nothing on {reference['system']} expires by itself"
        return f"{name} expires {read_time(ends):%Y-%m-%d %H:%M %Z} unless it is used before"

    return _each(gateway, which, "PUT" if pinned else "DELETE", "/pin", said, json=json)


def expire_unused(gateway: Gateway, system: str | None, *, json: bool) -> int:
    body = {"system": system} if system else {}
    raw = gateway.call("POST", "/admin/expire", body=body).body
    if json:
        show.document(raw)
        return 0
    with reading("what expired"):
        for reference in raw["items"]:
            print(show.plain(f"{reference['reference']} is gone from {reference['system']}"))
        seen, expired, held = raw["seen"], raw["expired"], raw["held"]
    print(f"{expired:,} of {show.count(seen, 'image')} expired; {held:,} stay for jobs.")
    return 0


def share(
    gateway: Gateway, reference: str, system: str | None, readers: Readers, *, json: bool
) -> int:
    named = bool(readers.users or readers.groups)
    if readers.nobody and named:
        raise UsageError("--nobody says that nobody may use it: leave --user and --group out")
    if named or readers.nobody:
        body = {"uids": user_ids(readers.users), "gids": group_ids(readers.groups)}
        raw = gateway.on_image("PUT", reference, system, "/readers", body=body).body
    else:
        raw = gateway.on_image("GET", reference, system, "/readers").body
    if json:
        show.document(raw)
        return 0
    with reading("readers"):
        if not raw["private"]:
            print(f"{show.plain(reference)} is public.")
        lines = {"users": users(raw["uids"]), "groups": groups(raw["gids"])}
        warning = raw["warning"]
    show.facts(lines)
    if warning:
        print(f"dray: {show.plain(warning)}", file=sys.stderr)
    return 0


def _each(
    gateway: Gateway,
    which: Which,
    method: str,
    below: str,
    said: Callable[[Json], str],
    *,
    json: bool,
) -> int:
    """One after the other; one that is refused keeps none of the others from it."""
    failed, changed = 0, []
    query = [("owner", str(user_ids([which.owner])[0]))] if which.owner else []
    for image in which.images:
        try:
            answer = gateway.on_image(method, image, which.system, below, query=query).body
        except RefusedError as exc:
            failed = told(exc, EXIT_FAILED)
            continue
        with reading("what was changed"):
            changed += answer["items"]
            for reference in () if json else answer["items"]:
                print(show.plain(f"{said(reference)}."))
    if json:
        show.document({"items": changed})
    return failed
