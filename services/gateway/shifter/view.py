"""From the catalog's records to what the wire shows of them.

A record of the wire has every field; what is absent is the text "MISSING".
"""

from collections.abc import Mapping
from typing import Any, Final

from services.gateway.access import readers_of
from services.gateway.directory import Entry
from shared.catalog.records import ImageRecord, UsageRecord
from shared.imported import TYPE as CUSTOM
from shared.imported import is_imported, untyped
from shared.reference import DEFAULT_REGISTRY
from shared.states import State

MISSING: Final = "MISSING"
_USUAL = (f"{DEFAULT_REGISTRY}/library/", f"{DEFAULT_REGISTRY}/")

WireRecord = Mapping[str, Any]


def ready_view(record: ImageRecord) -> WireRecord:
    """What the reference stands for now, whatever a newer pull of it is doing."""
    current = record.current
    assert current is not None
    config = current.config
    return {
        "id": current.image_id,
        **_named(record),
        "status": State.READY.value,
        **_readers(record),
        "ENV": list(config.env),
        "ENTRY": list(config.entrypoint) or MISSING,
        "WORKDIR": config.workdir or MISSING,
        "LABELS": dict(config.labels) or MISSING,
        "last_pull": (record.checked_at or current.ready_at).timestamp(),
        "status_message": "",
    }


def pull_view(record: ImageRecord) -> WireRecord:
    """Where the latest pull is: READY with all that belongs to it, else how far, or why not."""
    if record.state is State.READY and record.current is not None:
        return ready_view(record)
    failure = record.failure
    return {
        "id": MISSING,
        **_named(record),
        "status": record.state.value,
        **_readers(record),
        "ENV": MISSING,
        "ENTRY": MISSING,
        "WORKDIR": MISSING,
        "LABELS": MISSING,
        "last_pull": record.last_pull.timestamp(),
        "status_message": failure.message if failure is not None else "",
    }


def queue_view(pull: Entry) -> WireRecord:
    return {"status": pull.state.value, "image": short(pull.reference)}


def usage_view(record: UsageRecord) -> WireRecord:
    """One user's lookups of one image in one hour; the time is that of the last."""
    return {
        "user": record.user,
        "uid": record.uid if record.uid is not None else MISSING,
        "system": record.system,
        "type": CUSTOM if is_imported(record.reference) else "docker",
        "tag": short(record.reference),
        "id": record.image_id or MISSING,
        "time": record.last.timestamp(),
    }


def short(reference: str) -> str:
    """As users of Shifter write it beside a type: without a registry where Docker's is meant."""
    if is_imported(reference):
        return untyped(reference)
    for prefix in _USUAL:
        if reference.startswith(prefix):
            return reference.removeprefix(prefix)
    return reference


def _named(record: ImageRecord) -> WireRecord:
    return {
        "system": record.system,
        "itype": record.itype,
        "tag": [short(record.reference)],
    }


def _readers(record: ImageRecord) -> WireRecord:
    """Lists of ids; both empty where everybody may use it. The owner is one of its users."""
    readers = readers_of(record)
    if readers is None:
        return {"userACL": [], "groupACL": []}
    return {"userACL": list(readers.uids), "groupACL": list(readers.gids)}
