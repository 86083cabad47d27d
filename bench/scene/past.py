"""The hours before: what a gateway would have kept of them, with a morning that had its trouble."""

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Final

from services.gateway.past.history import STEP, ending, key_of
from shared.catalog.standing_records import MinuteRecord
from shared.models import utcnow

HOURS: Final = 24
_TROUBLE: Final = (190, 150)
"""Minutes ago: in between, the registry was away."""
_AWAY: Final = (700, 694)
"""Minutes ago: no gateway ran, and nothing is known."""


def minutes(nodes: int, seed: int) -> Iterator[MinuteRecord]:
    rng = Random(seed)
    last = ending(utcnow()) - STEP
    count = int(timedelta(hours=HOURS) / STEP)
    waiting, lost = 0.0, 20.0
    for ago in range(count, -1, -1):
        at = last - STEP * ago
        if _AWAY[1] <= ago <= _AWAY[0]:
            continue
        busy = _busy(ago, rng)
        trouble = _TROUBLE[1] <= ago <= _TROUBLE[0]
        waiting = waiting * 0.85 + (9 if trouble else 1.2 * busy) * rng.uniform(0.5, 1.5)
        lost = max(3.0, lost * 0.97 + rng.uniform(-1, 2.4))
        yield _minute(at, rng, busy, waiting, lost, nodes=nodes, trouble=trouble, ago=ago)


def _minute(
    at: datetime,
    rng: Random,
    busy: float,
    waiting: float,
    lost: float,
    *,
    nodes: int,
    trouble: bool,
    ago: int,
) -> MinuteRecord:
    ready = 0 if trouble else int(busy * 17 * rng.uniform(0.6, 1.2))
    images = 280 - ago // 12
    bytes_ = images * 6.1e9
    stood = {
        "pulls_waiting": round(waiting),
        "pulls_running": min(22, round(20 * busy * rng.uniform(0.8, 1.1))),
        "oldest_wait_seconds": round(waiting * 6 * rng.uniform(0.8, 1.2), 1),
        "queue_events": round(waiting + rng.expovariate(1 / 14) * busy),
        "dead_letters": 2 if ago < 140 else 0,
        "nodes_alive": nodes - round(lost),
        "nodes_lost": round(lost),
        "jobs_running": round(3 + 3 * busy * rng.uniform(0.9, 1.1)),
        "job_nodes_pending": _pending(ago, nodes) + round(max(0.0, rng.gauss(20, 30) * busy)),
        "job_nodes_failed": round(max(0.0, rng.gauss(12, 4))),
        "images": images,
        "image_bytes": round(bytes_),
        "pack_bytes": round(bytes_ * 0.43),
    }
    counted = {
        "pulls_ready_total": ready,
        "pulls_failed_total": rng.randint(2, 7) if trouble else int(rng.random() < 0.06),
        "placed_bytes_total": int(ready * rng.uniform(3e9, 8e9)),
    }
    return MinuteRecord(key=key_of(at), due_at=at, stood=stood, counted={"past": counted})


def _busy(ago: int, rng: Random) -> float:
    """From 0.3 half a day ago to 1 by now."""
    return (0.65 + 0.35 * math.cos(ago / 1440 * 2 * math.pi)) * rng.uniform(0.85, 1.1)


def _pending(ago: int, nodes: int) -> int:
    """Now and then a large job begins, and within minutes most of its nodes have its image."""
    since = -ago % 97
    return round(nodes * (0.2 + ago % 5 / 10) * 0.45**since) if since < 12 else 0
