"""What a shell asks while somebody waits for a completion: quick, or nothing at all.

It prints only words that are safe in any shell, whatever a gateway says.
"""

import contextlib
import os
import re
import sys
import threading
import time
from typing import Final

from cli.gateway import Gateway
from cli.show import short_reference
from shared.errors import DrayError

SECONDS: Final = 0.5
MOST: Final = 200
_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,511}")


def suggest(urls: str, kind: str, prefix: str) -> None:
    """Never returns: what is still being asked for is left behind."""
    words: list[str] = []
    asking = threading.Thread(target=_ask, args=(urls, kind, prefix, words), daemon=True)
    asking.start()
    asking.join(SECONDS)
    with contextlib.suppress(OSError, DrayError):
        print("\n".join(words[:MOST]), end="\n" if words else "")
        sys.stdout.flush()
    os._exit(0)


def _ask(urls: str, kind: str, prefix: str, words: list[str]) -> None:
    # Whatever goes wrong: a shell has no use for the reason.
    with contextlib.suppress(Exception):
        _fill(Gateway(urls), kind, prefix, words, time.monotonic() + SECONDS)


def _fill(gateway: Gateway, kind: str, prefix: str, words: list[str], until: float) -> None:
    if kind == "systems":
        found = gateway.call("GET", "/systems").body.get("items", ())
    else:
        images = gateway.images(None)
        found = (_written(str(image.get("reference", "")), prefix) for image in images)
    for word in map(str, found):
        if word.startswith(prefix) and _REFERENCE.fullmatch(word) and word not in words:
            words.append(word)
        if len(words) >= MOST or time.monotonic() > until:
            return


def _written(reference: str, prefix: str) -> str:
    """As people write it: what is Docker's without its registry, unless they have begun so."""
    return reference if prefix.startswith("docker.") else short_reference(reference)
