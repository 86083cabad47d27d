"""`dray hook allocate` and `release`: what a scheduler's controller tells a gateway of its jobs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from cli.answers import read_pull
from cli.errors import RefusedError
from cli.gateway import ID, Gateway
from cli.hook_guard import one_line, report
from cli.hook_notes import Notes, NotesUnusableError, checked
from cli.hook_submit import image_of
from shared.errors import DrayError

LOOK_AGAIN: Final = 1.0
"""For a pull."""
TRY_AGAIN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Allocation:
    """A job that has its nodes, which are as Slurm writes them. With `pulls`, these are all of its
    images in their order, also those that are in `images`.
    """

    job_id: str
    nodes: str
    images: tuple[str, ...]
    pulls: tuple[str, ...]
    uid: int | None
    system: str | None


def allocate(gateway: Gateway, job: Allocation, notes: Notes) -> None:
    """Announce a job, once its images are there. Safe to repeat; the caller bounds the time."""
    readable = _end_last(gateway, job.job_id, notes)
    names = [_pulled(gateway, name) for name in job.pulls] or job.images
    # In the order in which they were asked for: the first is the one that the job means.
    images = list(dict.fromkeys(names))
    body: dict[str, Any] = {"job_id": job.job_id, "nodes": job.nodes, "images": images}
    if job.uid is not None:
        body["uid"] = job.uid
    if job.system is not None:
        body["system"] = job.system
    _announce(gateway, job.job_id, body)
    if readable:
        _tell(gateway, notes)


def release(gateway: Gateway, job_id: str, notes: Notes) -> None:
    """Tell that a job has ended; if nobody listens, the next hook does. Safe to repeat."""
    checked(job_id)
    with notes.kept(job_id):
        _release(gateway, job_id)
    _tell(gateway, notes)


def failures_of(gateway: Gateway, pulls: Sequence[str]) -> list[str]:
    """Why pulls that a job waits for have failed."""
    views = [read_pull(gateway.pull(name)) for name in pulls if not ID.fullmatch(name)]
    return [f"{view.reference} cannot be had: {view.failure}" for view in views if view.failure]


def _end_last(gateway: Gateway, job_id: str, notes: Notes) -> bool:
    """Tell of a last end of this id that nobody has heard of; whether notes can be read.

    Announced as it was before, the job would change nothing, and no node would hear of it again.
    """
    try:
        # Before all else, since no hook may end what runs from now on.
        noted = notes.drop(checked(job_id))
    except NotesUnusableError as exc:
        report(f"whether the last end of job {job_id} was told cannot be read: {one_line(exc)}")
        _release(gateway, job_id)
        return False
    if noted:
        _release(gateway, job_id)
    return True


def _pulled(gateway: Gateway, name: str) -> str:
    """The id of the image that a pull brings; of one that is there already it is the name."""
    if ID.fullmatch(name):
        return name
    pull_id = name
    pull = read_pull(gateway.pull(pull_id))
    while not pull.ended:
        time.sleep(LOOK_AGAIN)
        pull = read_pull(gateway.pull(pull_id))
    return image_of(pull).id


def _announce(gateway: Gateway, job_id: str, body: Mapping[str, Any]) -> None:
    """An earlier job of this id, or this one before it was queued again, may still stand."""
    while True:
        try:
            gateway.call("POST", "/jobs", body=body)
        except RefusedError as exc:
            if exc.answered != HTTPStatus.CONFLICT:
                raise
            _release(gateway, job_id)
            time.sleep(TRY_AGAIN)
        else:
            return


def _release(gateway: Gateway, job_id: str) -> None:
    try:
        gateway.call("DELETE", f"/jobs/{quote(job_id, safe='')}")
    except RefusedError as exc:
        if exc.answered != HTTPStatus.NOT_FOUND:  # it was never announced
            raise


def _tell(gateway: Gateway, notes: Notes) -> None:
    """What this hook came for is done already."""
    try:
        notes.tell(lambda job_id: _release(gateway, job_id))
    except DrayError as exc:
        report(f"jobs that have ended are still to be told of: {one_line(exc)}")
