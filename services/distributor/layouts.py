"""An image's layout on Lustre: chosen by its size, given before a byte is written, and read back.

Where `lfs` is missing, refuses or hangs, the file is made as everywhere else: an image in an
unwanted layout is slower, one that is not there is useless.
"""

import math
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Self

from prometheus_client import Counter

from services.distributor.lfs import Lfs, LfsError, Wanted
from shared.layout import PlacedLayout
from shared.linux import file_system_type
from shared.logging import get_logger
from shared.settings.layout import LayoutSettings

LUSTRE_MAGIC: Final = 0x0BD00BD0
_GIBIBYTE: Final = 1 << 30
_MOST_TOLD: Final = 500

LAYOUTS = Counter(
    "dray_image_layouts_total",
    "Image files that were made on Lustre, by what lfs did.",
    ("outcome",),
)
EXTRAS = Counter(
    "dray_image_layout_extras_total",
    "Mirrors that were copied, and files that servers were asked to have in memory.",
    ("what", "outcome"),
)

log = get_logger(__name__)


def is_lustre(directory: Path, settings: LayoutSettings) -> bool:
    if settings.file_system != "auto":
        return settings.file_system == "lustre"
    return file_system_type(str(directory)) == LUSTRE_MAGIC


def wanted_layout(size: int, settings: LayoutSettings, *, hot: bool) -> Wanted:
    """Wider with the root of the size: bandwidth for large ones, few objects for small ones."""
    stripes = settings.stripe_count
    if stripes is None:
        stripes = min(math.isqrt(size // _GIBIBYTE) + 1, settings.max_stripes)
    return Wanted(
        stripes=stripes,
        stripe_size=settings.stripe_size,
        pool=settings.pool,
        mirrors=settings.mirrors if hot else 1,
    )


def is_hot(reference: str, settings: LayoutSettings) -> bool:
    return any(fnmatchcase(reference, pattern) for pattern in settings.hot)


class Laying:
    """The layout of one file that is being made. All of it blocks."""

    def __init__(
        self, settings: LayoutSettings, size: int, cancelled: threading.Event, *, hot: bool
    ) -> None:
        self._lfs = Lfs(settings, cancelled)
        self._wanted = wanted_layout(size, settings, hot=hot)
        self._warm = settings.warm and hot
        self._size = size
        self._fallback: str | None = None

    @classmethod
    def on(
        cls,
        directory: Path,
        settings: LayoutSettings,
        size: int,
        cancelled: threading.Event,
        *,
        hot: bool,
    ) -> Self | None:
        """None where files have no layout."""
        return cls(settings, size, cancelled, hot=hot) if is_lustre(directory, settings) else None

    def create(self, path: Path) -> bool:
        """As `shared.files.publishing` wants it."""
        try:
            self._lfs.create(self._wanted, path)
        except LfsError as exc:
            self._fallback = exc.message[:_MOST_TOLD]
            LAYOUTS.labels(exc.trouble).inc()
            log.warning("layout_not_given", trouble=exc.trouble, error=exc.message)
            return False
        LAYOUTS.labels("given").inc()
        return True

    def got(self, path: Path) -> PlacedLayout:
        """What the file really has."""
        try:
            layout = self._lfs.read(path)
        except LfsError as exc:
            log.warning("layout_not_read", trouble=exc.trouble, error=exc.message)
            layout = PlacedLayout()
        return layout.model_copy(update={"fallback": self._fallback, "warmed": self._warm})

    def finish(self, path: Path, layout: PlacedLayout, seconds: float) -> None:
        """What can be done only once nobody writes the file any more. It is whole without that."""
        if layout.mirrors > 1:
            self._extra("mirror", lambda: self._lfs.resync(path, seconds))
        if self._warm:
            self._extra("warm", lambda: self._lfs.warm(path, self._size))

    def _extra(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except LfsError as exc:
            EXTRAS.labels(what, exc.trouble).inc()
            log.warning("layout_unfinished", what=what, trouble=exc.trouble, error=exc.message)
        else:
            EXTRAS.labels(what, "done").inc()
