"""`dray export`: an image as a file of one's own."""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

from cli import show
from cli.answers import reading
from cli.download import Download, Offer
from cli.errors import EXIT_INTERRUPTED, CliError, RefusedError, UsageError
from cli.export_files import Partial, placed_file, written_anew, written_directory
from cli.export_names import annotations, file_name
from cli.export_progress import Meter, metering
from cli.gateway import Gateway
from cli.http import Json
from cli.oci.compress import Compression
from cli.oci.layout import Named, write_layout
from cli.oci.places import ArchivePlace, DirectoryPlace
from cli.output import complain
from shared.image.errors import ImageCorruptError
from shared.image.reading.arriving import ArrivingImage
from shared.image.reading.inspection import read_by, read_image, verify_by_itself
from shared.states import State

STDOUT: Final = "-"
ARCHIVE: Final = ".tar"
_PIECE: Final = 1 << 20
_GONE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED)


@dataclass(frozen=True, slots=True)
class ExportWish:
    """What somebody wants, in their words."""

    reference: str
    system: str | None = None
    output: str | None = None
    oci: bool = False
    compression: Compression = "gzip"
    force: bool = False


class NotTheImageError(CliError):
    """What was read is not the image that the gateway named."""

    code = "image_corrupt"


def export(gateway: Gateway, wish: ExportWish, *, json: bool) -> int:
    """The exit code."""
    began = time.monotonic()
    piped = wish.output == STDOUT
    if piped and sys.stdout.isatty():
        raise UsageError("an image is nothing for a terminal: name a file with -o, or pipe it")
    if piped and json:
        raise UsageError("-o - and --json both write to stdout: take one of them")
    offer = _offer(gateway.on_image("GET", wish.reference, wish.system, "/export").body)
    target = None if piped else _target(wish, offer)
    try:
        with metering(json=json) as meter:
            sockets = _Export(gateway, wish, offer, meter).run(target)
    except KeyboardInterrupt:
        if target is not None:
            complain("\nWhat has come is kept: the same command goes on where it was.")
        return EXIT_INTERRUPTED
    if sockets:
        complain(f"dray: {show.count(sockets, 'socket')} left out: a layer cannot hold them")
    if target is None:
        return 0
    if json:
        show.document(_document(wish, offer, target, time.monotonic() - began))
    else:
        took = show.duration(time.monotonic() - began)
        print(
            f"{show.plain(target)}  {show.plain(offer.reference)}, "
            f"id {offer.id[: show.SHORT_ID]}, {show.size(_size(target))}, {took}"
        )
    return 0


class _Export:
    """One image on its way to one place."""

    def __init__(self, gateway: Gateway, wish: ExportWish, offer: Offer, meter: Meter) -> None:
        self._wish = wish
        self._offer = offer
        self._meter = meter
        self._download = Download(gateway, offer, meter.away)

    def run(self, target: Path | None) -> int:
        """Make the file, or write it to stdout; the number of sockets that had to be left out."""
        if not self._wish.oci:
            if target is None:
                self._to_stdout()
            else:
                with Partial(target, self._offer) as partial:
                    self._fetch_all(partial)
                    partial.publish(target, force=self._wish.force)
            return 0
        with ExitStack() as stack:
            image = self._image(target, stack)
            if target is None:
                return self._archive_to_stdout(image)
            private, force = self._offer.private, self._wish.force
            if target.suffix == ARCHIVE:
                with written_anew(target, private=private, force=force) as file:
                    return self._archive(file, image)
            with written_directory(target, private=private) as directory:
                return self._layout(DirectoryPlace(directory), image)

    def _image(self, target: Path | None, stack: ExitStack) -> Path:
        """The squashfs, whole and checked: where it stands, or fetched for a while."""
        if (placed := placed_file(self._offer)) is not None:
            self._check(placed)
            return placed
        if target is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="dray-export-"))
            target = Path(directory) / "image"
        partial = stack.enter_context(Partial(target, self._offer))
        self._fetch_all(partial)
        stack.push(partial.over)
        return partial.path

    def _fetch_all(self, partial: Partial) -> None:
        """What an earlier run left may have lost its end with its machine: then once more."""
        resumed = partial.length > 0
        self._fetch(partial)
        try:
            self._check(partial.path)
        except (NotTheImageError, ImageCorruptError):
            partial.empty()
            if not resumed:
                partial.remove()
                raise
            self._fetch_all(partial)

    def _fetch(self, partial: Partial) -> None:
        size = self._offer.size
        placed = placed_file(self._offer)
        if placed is not None:
            partial.copy(placed, lambda done: self._meter.tell(State.TRANSFER, done, size))
            return
        try:
            for piece in self._download.pieces(partial.length):
                partial.append(piece)
                self._meter.tell(State.TRANSFER, partial.length, size)
        except RefusedError as exc:
            if exc.answered in _GONE:
                partial.remove()  # nobody can go on with it
            raise

    def _check(self, path: Path) -> None:
        self._meter.tell(State.EXAMINATION)
        found = verify_by_itself(read_image(path), threading.Event())
        self._compare(found)

    def _compare(self, found: str) -> None:
        if found != self._offer.content_digest:
            raise NotTheImageError(
                f"what came is another image: its content digest is {found}, and the gateway "
                f"named {self._offer.content_digest}; tell the operator"
            )

    def _to_stdout(self) -> None:
        """Checked on its way: who reads it knows by the exit code whether all is well."""
        size = self._offer.size
        placed = placed_file(self._offer)
        name = Path(f"{self._offer.id}.squashfs")
        if placed is None:
            arriving = ArrivingImage(read_by(self._download.read, name, size))
            pieces = self._download.pieces(0)
        else:
            arriving = ArrivingImage(read_image(placed))
            pieces = _pieces(placed)
        done = 0
        for piece in pieces:
            arriving.take(piece)
            sys.stdout.buffer.write(piece)
            done += len(piece)
            self._meter.tell(State.TRANSFER, done, size)
        self._compare(arriving.content_digest())

    def _archive(self, file: BinaryIO, image: Path) -> int:
        place = ArchivePlace(file)
        sockets = self._layout(place, image)
        place.finish()
        return sockets

    def _archive_to_stdout(self, image: Path) -> int:
        """By way of a file without a name: what stands first in it is known last."""
        with tempfile.TemporaryFile() as file:
            sockets = self._archive(file, image)
            file.seek(0)
            while piece := file.read(_PIECE):
                sys.stdout.buffer.write(piece)
        return sockets

    def _layout(self, place: ArchivePlace | DirectoryPlace, image: Path) -> int:
        offer = self._offer
        named = Named(offer.reference, offer.platform, annotations(offer.reference))

        def report(done: int, total: int) -> None:
            self._meter.tell(State.CONVERSION, done, total)

        return write_layout(place, image, named, self._wish.compression, report).sockets


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _offer(raw: Json) -> Offer:
    with reading("an export"):
        return Offer(
            id=raw["id"],
            system=raw["system"],
            type=raw["type"],
            reference=raw["reference"],
            size=int(raw["size"]),
            content_digest=raw["content_digest"],
            platform=raw["platform"],
            private=bool(raw["private"]),
            file=raw["file"],
        )


def _target(wish: ExportWish, offer: Offer) -> Path:
    """Where it goes; refused before anything is fetched if that cannot be."""
    name = file_name(offer.reference, f".oci{ARCHIVE}" if wish.oci else ".squashfs")
    path = Path(wish.output or name)
    layout = wish.oci and path.suffix != ARCHIVE
    if path.is_dir() and not layout:
        path /= name
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}: make it first")
    if layout and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
        raise UsageError(f"{path} is there already: name a new directory, or a file that ends .tar")
    if path.exists() and not layout:
        if not path.is_file():
            raise UsageError(f"{path} is no regular file, and is left alone: name another")
        if not wish.force:
            raise UsageError(f"{path} is there already: name another file, or say --force")
    return path


def _size(target: Path) -> int:
    if target.is_file():
        return target.stat().st_size
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _document(wish: ExportWish, offer: Offer, target: Path, seconds: float) -> Json:
    return {
        "path": str(target.absolute()),
        "format": "oci" if wish.oci else "squashfs",
        "size": _size(target),
        "image_id": offer.id,
        "reference": offer.reference,
        "content_digest": offer.content_digest,
        "seconds": round(seconds, 3),
    }
