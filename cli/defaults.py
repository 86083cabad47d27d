"""Where a gateway and a node's agent are, if nobody says otherwise."""

import os
from pathlib import Path
from typing import Final

LOCAL_GATEWAY: Final = "local"
"""The gateway of this machine: its socket, where one answers, or its port on loopback."""
LOOPBACK_GATEWAY: Final = "http://127.0.0.1:7600"
SITE_GATEWAY_SOCKETS: Final = (Path("/run/dray/gateway.sock"), Path("/var/lib/dray/gateway.sock"))
SITE_SOCKETS: Final = (Path("/run/dray/agent.sock"), Path("/var/lib/dray/agent/agent.sock"))


def usual_gateway_sockets() -> tuple[Path, ...]:
    """Where a gateway listens: the machine's, then one's own `dray up`."""
    return (*SITE_GATEWAY_SOCKETS, own_data_dir() / "gateway.sock")


def usual_sockets() -> tuple[Path, ...]:
    """Where an agent listens: the node's, then one's own `dray up`."""
    return (*SITE_SOCKETS, own_data_dir() / "agent/agent.sock")


def own_data_dir() -> Path:
    """Where `dray up` of an ordinary user keeps its data."""
    return _base("XDG_DATA_HOME", ".local/share") / "dray"


def own_cache_dir() -> Path:
    """Where `dray convert` keeps the layers that it converted."""
    return _base("XDG_CACHE_HOME", ".cache") / "dray"


def _base(variable: str, below_home: str) -> Path:
    given = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    return Path(given) if given.startswith("/") else Path.home() / below_home
