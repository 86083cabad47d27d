"""All of Dray in one process, with an agent for each node of a Slurm that is on one machine.

What `dray up` is for one node. At a site an agent runs on each node, and gateways, converters and
distributors elsewhere, over RabbitMQ.
"""

import argparse
import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.converter import app as converter
from services.distributor import app as distributor
from services.gateway import app as gateway
from services.node_agent import app as node_agent
from shared.bus.connect import connect_bus
from shared.config import Settings, load_settings
from shared.logging import configure_logging
from shared.service import Service, run_services

UP_LINE = "All services are up."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.slurm_demo.services")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="where agents mount and listen")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--munge", type=Path, required=True)
    parser.add_argument("--node", action="append", required=True)
    given = parser.parse_args()
    os.umask(0o022)
    common = {
        "data_dir": str(given.data),
        "gateway": {"listen": given.listen, "munge_socket": str(given.munge)},
    }
    settings = load_settings(None, common)
    configure_logging(settings.log)
    nodes = [load_settings(None, {**common, "agent": _agent(given.run, n)}) for n in given.node]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_services(list(_services(settings, nodes)), started=_tell))


def agent_directory(run: Path, node: str) -> Path:
    return run / "agents" / node


def _agent(run: Path, node: str) -> dict[str, Any]:
    return {"node": node, "run_dir": str(agent_directory(run, node)), "heartbeat": 2}


def _services(settings: Settings, nodes: Sequence[Settings]) -> Iterator[Service]:
    bus = connect_bus(settings, "slurm-demo")
    # The gateway opens the bus first, and closes it last.
    yield gateway.build(settings, bus)
    yield converter.build(settings, bus, serve_health=False)
    yield distributor.build(settings, bus, serve_health=False)
    for node in nodes:
        yield node_agent.build(node, bus, serve_health=False)


def _tell() -> None:
    print(UP_LINE, flush=True)


if __name__ == "__main__":
    main()
