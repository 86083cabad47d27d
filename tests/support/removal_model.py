"""A catalog and an image directory for tests of removal, with nothing between their steps.

The distributor's part is the real one, on real files; of the gateway's part the transitions are.
"""

import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.distributor.placement import place_image
from services.distributor.removal import forget, mark_if_there, take_away
from services.distributor.sidecars import Sidecar
from services.gateway.expiring import by_digest, kept, settled, stray
from services.gateway.transitions import Changed
from shared.catalog.records import ImageRecord
from shared.events import (
    Event,
    ImageChanged,
    ImageConverted,
    ImageExpired,
    ImageExpireRequested,
    ImagePlaced,
    ImageUnchanged,
    PlacementRequested,
    PullRequested,
    RefreshRequested,
    RemovalDecided,
    RemovalProposed,
)
from shared.image.recipe import Recipe
from shared.progress import Part
from shared.states import State
from tests.support.recipes import digest, small_recipe
from tests.support.transitions import MACHINE, NOW

SYSTEM = "cluster"


def write_image(recipe: Recipe, _store: object, final: Path, *_: object, **__: object) -> None:
    final.with_suffix(".json").write_text(Sidecar(recipe=recipe).model_dump_json())
    for kind in (".meta", ".squashfs"):
        final.with_suffix(kind).write_bytes(b"image")


@dataclass
class Check:
    """A gateway that was asked whether an image may go, between its questions."""

    event: RemovalProposed
    asked: int = 0


@dataclass
class Job:
    """A job that is being announced, or was."""

    image: str
    stored: bool = False
    checked: bool = False


class RemovalModel:
    """What there is, and what becomes of each event."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.records: dict[str, ImageRecord] = {}
        self.events: list[Event] = []
        self.checks: list[Check] = []
        self.jobs: list[Job] = []
        self.directory = Path(tempfile.mkdtemp())

    def handle(self, event: Event, image: str) -> None:
        self.at_worker(event, image)
        self.at_distributor(event)
        self.at_gateway(event)

    def at_worker(self, event: Event, image: str) -> None:
        match event:
            case PullRequested():
                done = ImageConverted(**event.context, recipe=small_recipe(image))
                self.events.append(done)
            case RefreshRequested():
                kind: Any = ImageUnchanged if event.known_digest == digest(image) else ImageChanged
                self.events.append(kind(**event.context, reference_digest=digest(image)))

    def at_distributor(self, event: Event) -> None:
        match event:
            case PlacementRequested():
                whole = Part(total=1)
                store: Any = None
                place_image(event.recipe, store, self.directory, whole, threading.Event())
                placed = ImagePlaced(
                    **event.context,
                    system=SYSTEM,
                    image_id=event.recipe.image_id,
                    content_digest="c" * 64,
                    size=1,
                )
                self.events.append(placed)
            case ImageExpireRequested():
                mark = mark_if_there(self.directory, event.image_id)
                if mark is None:
                    self.gone(event.image_id)
                else:
                    self.propose(event.image_id, mark)
            case RemovalDecided():
                decide = take_away if event.remove else forget
                if decide(self.directory, event.image_id, event.mark) and event.remove:
                    self.gone(event.image_id)

    def at_gateway(self, event: Event) -> None:
        match event:
            case ImageUnchanged():
                self.change(event.key, MACHINE.unchanged(self.found(event.key), event, self.now))
            case ImageChanged():
                self.change(event.key, MACHINE.changed(self.found(event.key), event, self.now))
            case ImageConverted():
                self.change(event.key, MACHINE.converted(self.found(event.key), event, self.now))
            case ImagePlaced():
                self.keep(event)
                self.change(event.key, MACHINE.placed(self.found(event.key), event, self.now))
                self.change(event.key, stray(self.found(event.key), event))
            case RemovalProposed():
                self.checks.append(Check(event))
            case ImageExpired():
                self.settle(event.image_id)

    # --- the catalog and the bus

    def found(self, key: str) -> ImageRecord | None:
        return self.records.get(key)

    def change(self, key: str, change: Changed) -> None:
        if change is not None:
            self.records[key] = change.record.model_copy(
                update={"version": change.record.version + 1}
            )
            self.events += change.events

    def keep(self, event: ImagePlaced) -> None:
        """The image that the record stands for stays under its digest."""
        record = self.found(event.key)
        if record is None or record.attempt != event.attempt or record.state is not State.TRANSFER:
            return
        digest = by_digest(record)
        if digest is not None and record.image_id != event.image_id:
            self.change(digest.key, kept(self.found(digest.key), digest, 90))

    def settle(self, image: str) -> None:
        for key, record in list(self.records.items()):
            self.change(key, settled(record, image, self.now))

    def decide(self, event: RemovalProposed, *, remove: bool) -> None:
        told = {"system": SYSTEM, "image_id": event.image_id, "mark": event.mark}
        self.events.append(
            RemovalDecided.model_validate({"correlation_id": "x", "remove": remove, **told})
        )
        if not remove:
            self.settle(event.image_id)

    def propose(self, image: str, mark: str) -> None:
        self.events.append(
            RemovalProposed(correlation_id="x", system=SYSTEM, image_id=image, mark=mark)
        )

    def gone(self, image: str) -> None:
        self.events.append(ImageExpired(correlation_id="x", system=SYSTEM, image_id=image))

    def file(self, image: str) -> Path:
        return self.directory / f"{image}.squashfs"
