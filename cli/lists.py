"""The commands that only ask and print: images, lookup, queue."""

from datetime import datetime

from cli import show
from cli.answers import Image, Pull, read_image, read_pull
from cli.gateway import Gateway
from cli.people import users
from cli.tables import PLAIN, Column, Style, state_colour, table

REFERENCE = Column("REFERENCE", worth=9, elastic=True, least=24)
SYSTEM = Column("SYSTEM", worth=4)


def images(gateway: Gateway, system: str | None, style: Style = PLAIN, *, json: bool) -> int:
    found = list(gateway.images(system))
    if json:
        show.document({"items": found})
        return 0
    shown = [read_image(each) for each in found]
    owners = {image.owner: _owner(image) for image in shown}
    rows = [
        (
            image.reference,
            image.system,
            show.size(image.size),
            str(image.layers),
            image.id[: show.SHORT_ID],
            "private" if image.private else "",
            owners[image.owner],
            show.age(image.ready_at),
        )
        for image in shown
    ]
    columns = (
        REFERENCE,
        SYSTEM,
        Column("SIZE", worth=8, right=True),
        Column("LAYERS", worth=1, right=True),
        Column("ID", worth=3),
        Column("ACCESS" if any(row[-3] for row in rows) else "", worth=5),
        Column("OWNER" if any(row[-2] for row in rows) else "", worth=4),
        Column("READY", worth=6),
    )
    hint = f"No image is READY yet: {show.pull_command('alpine:3', system)}"
    table(columns, rows, hint, style)
    return 0


def lookup(
    gateway: Gateway, reference: str, system: str | None, *, quiet: bool = False, json: bool
) -> int:
    raw = gateway.image(reference, system)
    if json:
        show.document(raw)
    elif quiet:
        print(show.plain(read_image(raw).id))
    else:
        _describe(read_image(raw))
    return 0


def _describe(image: Image) -> None:
    lines = {
        "reference": image.reference,
        "system": image.system,
        "id": image.id,
        "access": "private" if image.private else "public",
        **({} if image.owner is None else {"owner": _owner(image)}),
        "size": show.size(image.size),
        "content": image.content_digest,
        "layers": str(image.layers),
        "ready": _moment(image.ready_at),
        "last used": _moment(image.last_used) if image.last_used else "unknown",
        "pinned": "yes" if image.pinned else "no",
        "expires": _ending(image),
        "entrypoint": " ".join(image.entrypoint) or "none",
        "cmd": " ".join(image.cmd) or "none",
        "workdir": image.workdir or "/",
    }
    show.facts(lines)


def _owner(image: Image) -> str:
    return "" if image.owner is None else users([image.owner])


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S %Z} ({show.age(at)})"


def _ending(image: Image) -> str:
    if image.pinned or image.expires_at is None:
        return "not by itself"
    return f"{image.expires_at:%Y-%m-%d %H:%M %Z} unless it is used before"


def queue(gateway: Gateway, system: str | None, style: Style = PLAIN, *, json: bool) -> int:
    raw = list(gateway.pages("/queue", {"system": system}))
    if json:
        show.document({"items": raw})
        return 0
    pulls = [read_pull(entry) for entry in raw]
    rows = [
        (
            pull.state,
            _bytes(pull),
            pull.reference,
            pull.system,
            pull.requested_by,
            show.age(pull.requested_at),
        )
        for pull in pulls
    ]
    columns = (
        Column("STATE", worth=8, paint=state_colour),
        Column("BYTES", worth=7),
        REFERENCE,
        SYSTEM,
        Column("BY", worth=5),
        Column("REQUESTED", worth=6),
    )
    if style.quiet:
        table((REFERENCE,), [(pull.reference,) for pull in pulls], "", style)
        return 0
    table(columns, rows, "Nothing is being pulled.", style)
    for pull in pulls:
        if pull.trouble and style == PLAIN:
            print(f"\n{show.plain(pull.reference)}: {show.plain(pull.trouble)}")
    return 0


def _bytes(pull: Pull) -> str:
    progress = pull.progress
    if pull.ended or progress is None or not progress.total:
        return ""
    return f"{show.size(progress.done)} of {show.size(progress.total)}"
