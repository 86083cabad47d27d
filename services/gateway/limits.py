"""How much one user may ask of this gateway: requests per second, and streams at a time.

Each gateway counts for itself. The public is counted by address; admins are not counted.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from services.gateway.auth.identity import Principal
from shared.errors import DrayError

MOST_REMEMBERED: Final = 20_000
STREAM_RETRY: Final = 10


class TooManyRequestsError(DrayError):
    """One user asks faster than the settings allow."""

    code = "too_many_requests"
    status = 429
    retryable = True

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self._retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_after)}


class TooManyStreamsError(TooManyRequestsError):
    """One user follows more streams at a time than the settings allow."""

    code = "too_many_streams"


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class Limits:
    """A bucket of tokens for each user, filled at a steady rate, and a count of streams."""

    def __init__(
        self, rate: float, burst: int, streams: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most_streams = streams
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._streams: Counter[str] = Counter()

    def request(self, user: str) -> None:
        """Take a token, or say when there will be one."""
        now = self._clock()
        bucket = self._buckets.get(user)
        if bucket is None:
            bucket = self._buckets[user] = _Bucket(float(self._burst), now)
            if len(self._buckets) > MOST_REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(user)
        gained = (now - bucket.filled) * self._rate
        bucket.tokens, bucket.filled = min(self._burst, bucket.tokens + gained), now
        if bucket.tokens < 1:
            wait = max(1, math.ceil((1 - bucket.tokens) / self._rate))
            raise TooManyRequestsError(
                f"you ask more often than {self._rate:g} times per second: wait {wait} s", wait
            )
        bucket.tokens -= 1

    @contextmanager
    def stream(self, user: str) -> Iterator[None]:
        """Counts one stream for as long as it is open."""
        if self._streams[user] >= self._most_streams:
            raise TooManyStreamsError(
                f"you follow {self._most_streams} streams already: end some of them, or ask for "
                "the queue instead",
                STREAM_RETRY,
            )
        self._streams[user] += 1
        try:
            yield
        finally:
            self._streams[user] -= 1
            if not self._streams[user]:
                del self._streams[user]


def counted_as(principal: Principal, remote: str | None) -> str:
    """Whose requests these are: a user's, a service account's, or a network's."""
    if principal.uid is not None:
        return f"uid {principal.uid}"
    if principal.via == "token":
        return principal.name
    return _counted_address(remote or "")


@lru_cache(MOST_REMEMBERED)
def _counted_address(remote: str) -> str:
    try:
        address = ip_address(remote)
    except ValueError:
        return "unknown address"
    # Whoever has one IPv6 address usually has all of its network's.
    return str(ip_network((address, 64), strict=False) if address.version == 6 else address)
