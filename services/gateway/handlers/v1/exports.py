"""Images as files: what one is, and its bytes, from anywhere on."""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from services.gateway.auth.identity import Principal, principal_of
from services.gateway.directory import Entry
from services.gateway.exports import (
    ExportUnavailableError,
    ImageFile,
    TooManyExportsError,
    Turns,
)
from services.gateway.handlers.stream import seconds_for
from services.gateway.handlers.v1.finding import Finder, ImagePath
from services.gateway.lookups import Lookups
from services.gateway.metrics import EXPORTED_BYTES, EXPORTS
from services.gateway.usage.service import Usage
from shared.api import API, ExportView
from shared.catalog.records import ImageRecord, PlacedImage
from shared.deadline import Deadline
from shared.errors import DrayError, NotFoundError, UnknownSystemError
from shared.http.answers import STREAM_ROUTE, answer
from shared.http.conditional import NEVER_KEPT
from shared.http.operation import operation
from shared.http.request_ids import request_id_headers
from shared.logging import get_logger
from shared.settings.site import SystemSettings

log = get_logger(__name__)

PIECE: Final = 512 << 10
WRITE_SECONDS: Final = 60.0
"""For whoever does not read; they may go on where they were."""
_TYPE: Final = "application/octet-stream"


class ImageChangedError(DrayError):
    """The reference stands for another image than the one that a client began to fetch."""

    code = "image_changed"
    status = 412


class NoSuchRangeError(DrayError):
    """What is asked for begins behind the end of the image."""

    code = "no_such_range"
    status = 416


class ExportHandlers:
    """For whoever may look the image up. A path that is not percent-encoded is cut here."""

    def __init__(
        self,
        finder: Finder,
        lookups: Lookups,
        usage: Usage,
        systems: Mapping[str, SystemSettings],
        *,
        per_user: int,
    ) -> None:
        self._finder = finder
        self._lookups = lookups
        self._usage = usage
        self._systems = systems
        self._turns = Turns(per_user)

    def routes(self) -> list[web.RouteDef]:
        path = f"{API}/images/{{system}}/{{type}}/{{reference:.+}}/export"
        return [
            web.get(path, self.describe_export),
            web.get(f"{path}/squashfs", self.send_squashfs, name=f"{STREAM_ROUTE}-squashfs"),
        ]

    @operation(
        path=ImagePath, gives={200: ExportView}, problems=(NotFoundError, UnknownSystemError)
    )
    async def describe_export(self, request: web.Request) -> web.Response:
        """What there is to know before an image is fetched as a file."""
        principal = principal_of(request)
        entry, record, current = await self._found(request, principal)
        self._usage.note("lookups", principal, entry)
        system = self._systems[record.system]
        # Who is nobody in particular is no user of the site's file systems.
        known = principal.uid is not None
        view = ExportView(
            id=current.image_id,
            system=record.system,
            type=record.itype,
            reference=record.reference,
            size=current.size,
            content_digest=current.content_digest,
            platform=system.platform,
            private=record.private,
            file=str(system.image_dir / f"{current.image_id}.squashfs") if known else None,
        )
        return answer(view, headers=NEVER_KEPT)

    @operation(
        path=ImagePath,
        gives={200: _TYPE, 206: _TYPE},
        problems=(
            NotFoundError,
            UnknownSystemError,
            ImageChangedError,
            NoSuchRangeError,
            ExportUnavailableError,
            TooManyExportsError,
        ),
        headers={"ETag": "The image's content digest.", "Accept-Ranges": "bytes"},
    )
    async def send_squashfs(self, request: web.Request) -> web.StreamResponse:
        """An image's squashfs, or the rest of it from a byte on.

        `Range` asks for a part, and `If-Match`, with the content digest in quotation marks, for
        this very image and no later one of the reference: so a broken transfer goes on where it
        was. One connection lasts an hour at most. A gateway that does not see the image's file
        system answers `export_unavailable`; another one may have it.
        """
        principal = principal_of(request)
        entry, record, current = await self._found(request, principal)
        etag = f'"{current.content_digest}"'
        wanted = request.headers.get(hdrs.IF_MATCH)
        if wanted is None:
            self._usage.note("lookups", principal, entry)
        elif wanted.strip() not in {etag, "*"}:
            raise ImageChangedError(
                f"{entry.reference} stands for another image now: begin again with that, or ask "
                "for yours by its id"
            )
        # Who would join it to another image's beginning has to begin again, with all of this one.
        same = request.headers.get(hdrs.IF_RANGE, etag).strip() == etag
        asked = _range(request, current.size) if same else None
        start, end = asked or (0, current.size)
        headers = {
            hdrs.CONTENT_TYPE: _TYPE,
            hdrs.CONTENT_LENGTH: str(end - start),
            hdrs.ETAG: etag,
            hdrs.ACCEPT_RANGES: "bytes",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{current.image_id}.squashfs"',
            **NEVER_KEPT,
            **request_id_headers(request),
        }
        if asked is not None:
            headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{end - 1}/{current.size}"
        directory = self._systems[record.system].image_dir
        with self._turns.taken(principal, request.remote):
            async with ImageFile.opened(directory, current.image_id, current.size) as file:
                response = web.StreamResponse(status=200 if asked is None else 206, headers=headers)
                await response.prepare(request)
                if request.method != hdrs.METH_HEAD:
                    await _send(request, response, file, (start, end), seconds_for(principal))
        return response

    async def _found(
        self, request: web.Request, principal: Principal
    ) -> tuple[Entry, ImageRecord, PlacedImage]:
        """Read anew: whoever was taken off must not get another byte."""
        entry, _ = await self._finder.image(request, principal)
        record = await self._lookups.record(principal, entry)
        if record is None or record.current is None:
            raise NotFoundError(f"{entry.reference} is not READY on {entry.system} any more")
        return entry, record, record.current


async def _send(
    request: web.Request,
    response: web.StreamResponse,
    file: ImageFile,
    part: tuple[int, int],
    seconds: float,
) -> None:
    """One piece is read while the one before it is sent. What is not whole ends with a broken
    connection: there is no other way to tell by then."""
    position, end = part
    outcome = "broken"
    deadline = Deadline.after(seconds)
    reading = file.read(position, min(PIECE, end - position))
    try:
        while position < end:
            async with deadline.bound("sending an image"):
                piece = await reading
            if not piece:
                log.warning("export_failed", reason="the image's file became shorter")
                break
            position += len(piece)
            if position < end:
                reading = file.read(position, min(PIECE, end - position))
            async with deadline.sooner(WRITE_SECONDS).bound("sending an image"):
                await response.write(piece)
            EXPORTED_BYTES.inc(len(piece))
        else:
            outcome = "sent"
            await response.write_eof()
    except ConnectionResetError:
        outcome = "left"
    except (DrayError, OSError) as exc:
        log.warning("export_failed", reason=str(exc))
    finally:
        reading.cancel()
        EXPORTS.labels(outcome).inc()
        if outcome != "sent" and request.transport is not None:
            request.transport.abort()


def _range(request: web.Request, size: int) -> tuple[int, int] | None:
    """What cannot be understood is not asked for, as RFC 9110 has it."""
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start is None:
        return None
    start = max(size + asked.start, 0) if asked.start < 0 else asked.start
    end = size if asked.stop is None else min(asked.stop, size)
    if start >= end:
        raise NoSuchRangeError(f"the image has {size} bytes, and none of these")
    return start, end
