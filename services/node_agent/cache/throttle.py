"""How fast all copies of this node together may read from the shared directory."""

import threading
import time
from collections.abc import Callable
from typing import Final

_STEP: Final = 0.1
"""How often one that waits looks whether it is still wanted."""


class Throttle:
    """Each piece waits until those before it have had their time. For threads."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, size: int, check: Callable[[], None]) -> None:
        """Until so many bytes may be read; `check` ends it by an error."""
        if self._rate is None:
            return
        with self._lock:
            begin = max(self._free_at, time.monotonic())
            self._free_at = begin + size / self._rate
        while (left := begin - time.monotonic()) > 0:
            check()
            time.sleep(min(left, _STEP))
