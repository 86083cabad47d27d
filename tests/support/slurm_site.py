"""A site whose nodes are those of a private Slurm: the services, and one agent for each node.

All agents run on this one machine, each with its own directory, as Slurm's several slurmd do.
"""

import json
import shlex
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.support.conditions import eventually
from tests.support.ports import free_port
from tests.support.site import Site
from tests.support.slurm import Slurm
from tests.support.users import ordinary_environment, ordinary_python

SERVING_SECONDS = 30.0


class NodesSite(Site):
    """`async with`, then `start()` and `start_agents()`. The bus is RabbitMQ."""

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[str],
        bus_url: str,
        munge_socket: Path,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(settings or {})
        given["bus"] = {"url": bus_url}
        given["gateway"] = {"munge_socket": str(munge_socket), **given.get("gateway", {})}
        super().__init__(directory, given)
        self.directory.chmod(0o755)
        self.nodes = tuple(nodes)
        self._ports |= {node: free_port() for node in nodes}
        for node in nodes:
            self._write_agent(node, {})

    @property
    def socket_template(self) -> str:
        """Where each node's agent listens; %n is the node's name."""
        return str(self.run_dir("%n") / "agent.sock")

    def run_dir(self, node: str) -> Path:
        return self.directory / "agents" / node

    async def start_agents(self, *nodes: str, **settings: Any) -> None:
        """Start agents of nodes (all, if none is named), perhaps with other settings of them."""
        for node in nodes or self.nodes:
            self._write_agent(node, settings)
            config = self._agent_config(node)
            self._spawn(node, [sys.executable, "-m", "services.node_agent", "--config", config])
        for node in nodes or self.nodes:
            await eventually(partial(self.serves, node), within=SERVING_SECONDS)

    async def agent(self, node: str, method: str, path: str, body: object = None) -> Any:
        """Ask an agent at its socket, as root."""
        connector = aiohttp.UnixConnector(str(self.run_dir(node) / "agent.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://agent{path}", json=body) as answer,
        ):
            return await answer.json() if answer.status != 204 else {}

    def mounts(self, node: str | None = None) -> list[str]:
        """What stands mounted below one node's agent, or all."""
        below = self.directory / "agents" if node is None else self.run_dir(node)
        places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        return [place for place in places if Path(place).is_relative_to(below)]

    def images_mounted(self, node: str | None = None) -> list[str]:
        """Where images are mounted, but for their insides."""
        return [place for place in self.mounts(node) if Path(place).parent.name == "mounts"]

    def dray(self, path: Path, **env: str) -> Path:
        """A program at `path` that is `dray` for every user of this machine."""
        given = {"PYTHONPATH": ordinary_environment()["PYTHONPATH"], **env}
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in given.items())
        path.write_text(
            f"#!/bin/sh\n{exports}export PYTHONDONTWRITEBYTECODE=1\n"
            f'exec {ordinary_python()} -c "from cli.main import main; main()" "$@"\n'
        )
        path.chmod(0o755)
        return path

    def _agent_config(self, node: str) -> Path:
        return self.directory / f"{node}.json"

    def _write_agent(self, node: str, settings: Mapping[str, Any]) -> None:
        content = json.loads(self._config.read_text())
        content["agent"] |= {
            "node": node,
            "run_dir": str(self.run_dir(node)),
            "listen": f"127.0.0.1:{self._ports[node]}",
            **settings,
        }
        self._agent_config(node).write_text(json.dumps(content))

    async def serves(self, node: str) -> bool:
        """Whether this node's agent answers, and has its bus."""
        status = self._processes[node].poll()
        assert status is None, f"agent {node} ended with {status}:\n{self.log(node)[-4000:]}"
        try:
            return bool((await self.agent(node, "GET", "/v1/status"))["bus_connected"])
        except (aiohttp.ClientError, KeyError):
            return False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Slurm, and Dray on its nodes."""

    slurm: Slurm
    site: NodesSite

    @classmethod
    def make(
        cls,
        bus_url: str,
        *,
        nodes: int = 3,
        cores: int = 2,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Neither is started: hooks can be written that name what is going to be."""
        slurm = Slurm(nodes, cores=cores)
        place = slurm.directory / "site"
        return cls(slurm, NodesSite(place, slurm.nodes, bus_url, slurm.munge_socket, settings))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        with self.slurm:
            async with self.site:
                await self.site.start()
                await self.site.start_agents()
                yield self
