"""Real node agents for tests: in this process, or as a process that can be killed."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from services.node_agent.app import NodeAgent, build
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from tests.support.conditions import eventually
from tests.support.squashfs import PlacedImage, is_root, mounts_in, place_image, small_tree
from tests.support.users import (
    REPOSITORY,
    ordinary_environment,
)

PATIENCE = 30.0

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="loop mounts need root"),
]
needs_squashfuse = pytest.mark.skipif(
    shutil.which("squashfuse") is None, reason="squashfuse is missing: install squashfuse"
)
real_mounts = [
    pytest.param("unpack"),
    pytest.param("loop", marks=needs_root),
    pytest.param("squashfuse", marks=[*needs_root, needs_squashfuse]),
]


@dataclass
class Place:
    """Directories of one node, and images in them."""

    root: Path
    cache: Mapping[str, Any] = field(default_factory=dict)
    """Its settings; none: the agent has no cache."""

    @property
    def agent_dir(self) -> Path:
        return self.root / "agent"

    @property
    def socket(self) -> Path:
        return self.agent_dir / "agent.sock"

    def settings(self, mount: str) -> Settings:
        return Settings.model_validate(self.document(mount))

    def document(self, mount: str) -> dict[str, Any]:
        agent: dict[str, Any] = {"mount": mount, "node": "n1", "listen": "127.0.0.1:0"}
        if self.cache:
            agent["cache"] = dict(self.cache)
        return {"data_dir": str(self.root), "agent": agent}

    def image(self, name: str, codec: str = "gzip") -> PlacedImage:
        tree = small_tree(self.root / "trees" / name, greeting=f"this is {name}\n")
        return place_image(tree, self.root / "images", name=name, codec=codec)

    def standing(self) -> list[str]:
        """What is left of mounts and unpacked trees."""
        directory = self.agent_dir / "mounts"
        return mounts_in(self.root) + [str(path) for path in directory.glob("*")]


@contextlib.asynccontextmanager
async def running(settings: Settings, bus: Bus) -> AsyncIterator[NodeAgent]:
    agent = build(settings, bus, serve_health=False)
    try:
        await agent.start(Deadline.after(PATIENCE))
        yield agent
    finally:
        await agent.stop(Deadline.after(PATIENCE))


async def ask(
    place: Place, method: str, path: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.socket))) as session,
        session.request(method, f"http://agent{path}", json=body) as answer,
    ):
        return answer.status, await answer.json() if answer.status != 204 else {}


def greeting(view: dict[str, Any]) -> str:
    return (Path(view["path"]) / "greeting").read_text()


@contextlib.contextmanager
def agent_process(
    place: Place,
    mount: str,
    python: str = sys.executable,
    within: Sequence[str] = (),
    **user: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    config = place.root / "dray.yaml"
    # A broker that nobody runs: the agent has to serve without one.
    document = {**place.document(mount), "bus": {"url": "amqp://127.0.0.1:1/"}}
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    with (place.root / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [*within, python, "-m", "services.node_agent", "--config", str(config)],
            cwd=REPOSITORY,
            env=ordinary_environment(),
            stderr=log,
            **user,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            # unshare(1) hears nothing else; its child dies with it.
            (process.kill if within else process.terminate)()
        process.wait(PATIENCE)


async def serving(place: Place, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    async def answers() -> dict[str, Any] | None:
        assert process.poll() is None, (place.root / "agent.log").read_text()
        try:
            return (await ask(place, "GET", "/v1/status"))[1]
        except aiohttp.ClientError:
            return None

    found: dict[str, Any] | None = await eventually(answers, within=PATIENCE)
    assert found is not None
    return found
