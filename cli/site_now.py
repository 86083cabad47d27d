"""The site as the gateway last told it, for `dray top`."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cli.errors import CliError
from cli.http import Json

STALE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is drawn at one moment."""

    overview: Json
    pulls: tuple[Json, ...]
    jobs: tuple[Json, ...] | None
    age: float
    """Seconds since anything was heard."""
    trouble: str | None


@dataclass(slots=True)
class SiteNow:
    """Written by whoever follows the gateway, read by whoever draws."""

    refused: CliError | None = None
    _overview: Json = field(default_factory=dict)
    _pulls: dict[str, Json] = field(default_factory=dict)
    _jobs: list[Json] | None = None
    _heard_at: float = field(default_factory=time.monotonic)
    _trouble: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def heard(self, kind: str, data: Json) -> None:
        """One event of the live stream; kinds of later versions are passed over."""
        with self._lock:
            match kind:
                case "snapshot":
                    self._pulls = _by_id(data.get("items", []))
                case "pull":
                    self._pulls[str(data.get("id"))] = data
                case "gone":
                    self._pulls.pop(str(data.get("id")), None)
                case "overview":
                    self._overview = data
                case "jobs":
                    self._jobs = list(data.get("items", []))
            self._heard_at, self._trouble = time.monotonic(), None

    def asked(self, overview: Json, pulls: list[Json], jobs: list[Json] | None) -> None:
        with self._lock:
            self._overview, self._pulls, self._jobs = overview, _by_id(pulls), jobs
            self._heard_at = time.monotonic()

    def lost(self, reason: str) -> None:
        with self._lock:
            self._trouble = reason

    def now(self) -> Snapshot:
        with self._lock:
            return Snapshot(
                overview=self._overview,
                pulls=tuple(self._pulls.values()),
                jobs=None if self._jobs is None else tuple(self._jobs),
                age=time.monotonic() - self._heard_at,
                trouble=self._trouble,
            )

    def document(self) -> dict[str, Any]:
        """All of it, as the gateway said it."""
        seen = self.now()
        jobs = None if seen.jobs is None else list(seen.jobs)
        return {**seen.overview, "pulls": list(seen.pulls), "jobs_running": jobs}


def _by_id(items: list[Json]) -> dict[str, Json]:
    return {str(each.get("id")): each for each in items}
