"""The commands that only ask and print: images, lookup, queue, dead letters, nodes."""

from cli import show
from cli.answers import Image, Pull, read_image, read_pull, read_time, reading
from cli.gateway import Gateway


def images(gateway: Gateway, system: str | None, *, json: bool) -> int:
    found = list(gateway.images(system))
    if json:
        show.document({"items": found})
        return 0
    rows = [
        (
            image.reference,
            image.system,
            show.size(image.size),
            str(image.layers),
            image.id[: show.SHORT_ID],
            show.age(image.ready_at),
        )
        for image in map(read_image, found)
    ]
    headings = ("REFERENCE", "SYSTEM", "SIZE", "LAYERS", "ID", "READY")
    show.table(headings, rows, f"No image is READY yet: {show.pull_command('alpine:3', system)}")
    return 0


def lookup(gateway: Gateway, reference: str, system: str | None, *, json: bool) -> int:
    raw = gateway.image(reference, system)
    if json:
        show.document(raw)
    else:
        _describe(read_image(raw))
    return 0


def _describe(image: Image) -> None:
    lines = {
        "reference": image.reference,
        "system": image.system,
        "id": image.id,
        "size": show.size(image.size),
        "content": image.content_digest,
        "layers": str(image.layers),
        "ready": f"{image.ready_at:%Y-%m-%d %H:%M:%S %Z} ({show.age(image.ready_at)})",
        "entrypoint": " ".join(image.entrypoint) or "none",
        "cmd": " ".join(image.cmd) or "none",
        "workdir": image.workdir or "/",
    }
    for name, value in lines.items():
        print(f"{name:<11} {show.plain(value)}")


def queue(gateway: Gateway, system: str | None, *, json: bool) -> int:
    raw = gateway.items("/queue", system=system)
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
    headings = ("STATE", "BYTES", "REFERENCE", "SYSTEM", "BY", "REQUESTED")
    show.table(headings, rows, "Nothing is being pulled.")
    for pull in pulls:
        if pull.trouble:
            print(f"\n{show.plain(pull.reference)}: {show.plain(pull.trouble)}")
    return 0


def _bytes(pull: Pull) -> str:
    progress = pull.progress
    if pull.ended or progress is None or not progress.total:
        return ""
    return f"{show.size(progress.done)} of {show.size(progress.total)}"


def dead_letters(gateway: Gateway, *, json: bool) -> int:
    letters = gateway.items("/admin/dead-letters")
    if json:
        show.document({"items": letters})
        return 0
    with reading("the dead letters"):
        rows = [
            (
                str(letter["id"]),
                str(letter["queue"]),
                str(letter["deliveries"]),
                show.age(read_time(letter["died_at"])) if letter["died_at"] else "",
                str(letter["reason"]),
            )
            for letter in letters
        ]
    headings = ("ID", "QUEUE", "TRIED", "DIED", "REASON")
    show.table(headings, rows, "No event has failed for good.")
    if rows:
        print("\nSend one to its queue again with: dray queue dead --replay ID")
    return 0


def replay(gateway: Gateway, letter_id: str, *, json: bool) -> int:
    gateway.replay(letter_id)
    if json:
        show.document({"replayed": letter_id})
    else:
        print(f"Event {show.plain(letter_id)} is in its queue again.")
    return 0


def nodes(gateway: Gateway, *, json: bool) -> int:
    found = gateway.items("/nodes")
    if json:
        show.document({"items": found})
        return 0
    with reading("the nodes"):
        rows = [
            (
                str(node["node"]),
                str(node["system"]),
                str(node["kernel"]),
                str(node["mounter"]),
                ", ".join(map(str, node["codecs"])),
                str(node["mounts"]),
                show.age(read_time(node["seen_at"])),
            )
            for node in found
        ]
    headings = ("NODE", "SYSTEM", "KERNEL", "MOUNTS WITH", "READS", "MOUNTS", "SEEN")
    show.table(headings, rows, "No agent has reported yet: it does so within its first heartbeat.")
    return 0
