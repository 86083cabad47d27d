"""Free ports for the servers that tests start.

None of those that the kernel gives to outgoing connections: several processes of tests, with a
browser and brokers, open hundreds of these, and one may take the port before its server does.
"""

import random
import socket
from typing import Final

_FIRST: Final = 15_000
_END: Final = 32_000
_given: set[int] = set()
_random = random.SystemRandom()


def free_port() -> int:
    """A loopback port that was free a moment ago, and that this process was not given before."""
    while True:
        port = _random.randrange(_FIRST, _END)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
