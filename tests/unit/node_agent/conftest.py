"""An agent's logic over a mounter that can be held up, and real files for all else."""

import hashlib
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.node_agent.holds import Holds
from services.node_agent.jobs import Jobs
from services.node_agent.mounter import How, Source
from services.node_agent.probe import probe_image
from services.node_agent.staging import Stager
from services.node_agent.state import JobFiles
from shared.config import Settings
from shared.events import NodeImage

PATIENCE = 10.0


@dataclass
class GatedMounter:
    """Puts a marker where a mount would be; waits for `gate` before it does."""

    how: How = "unpack"
    codecs: frozenset[str] = frozenset({"gzip"})
    mounted: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    failure: Exception | None = None

    def mount(self, image: Source, target: Path) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        (target / "marker").write_text(image.path.name, encoding="utf-8")
        self.mounted.append(target.name)


@dataclass
class Node:
    """One node's parts, and images to put on it."""

    settings: Settings
    mounter: GatedMounter
    stager: Stager
    holds: Holds
    files: JobFiles
    jobs: Jobs

    def image(self, name: str, codec: str = "gzip") -> NodeImage:
        content = probe_image("zstd" if codec == "zstd" else "gzip")
        if codec == "xz":
            content = content[:20] + struct.pack("<H", 4) + content[22:]
        image_id = hashlib.sha256(name.encode()).hexdigest()
        self.file(image_id).write_bytes(content)
        self.file(image_id).with_suffix(".json").write_text("{}")
        content_digest = hashlib.sha256(content).hexdigest()
        return NodeImage(image_id=image_id, content_digest=content_digest, size=len(content))

    def file(self, image_id: str) -> Path:
        return self.settings.systems["local"].image_dir / f"{image_id}.squashfs"

    def standing(self) -> set[str]:
        """The images that are mounted."""
        return {path.name for path in (self.settings.agent_dir / "mounts").iterdir()}


def make_node(directory: Path, mounter: GatedMounter) -> Node:
    settings = Settings.model_validate({"data_dir": directory, "agent": {"node": "n1"}})
    settings.systems["local"].image_dir.mkdir(parents=True, exist_ok=True)
    stager = Stager(settings, mounter)
    holds = Holds(stager)
    files = JobFiles(settings.agent_dir / "jobs")
    jobs = Jobs(holds, files, system="local", stage_timeout=PATIENCE)
    return Node(settings, mounter, stager, holds, files, jobs)


@pytest.fixture
def nodes(tmp_path: Path) -> Callable[[], Node]:
    """Makes the node; made again, it is the same node after its agent was killed."""

    def make() -> Node:
        mounter = GatedMounter()
        mounter.gate.set()
        return make_node(tmp_path, mounter)

    return make


@pytest.fixture
async def node(nodes: Callable[[], Node]) -> Node:
    made = nodes()
    await made.jobs.adopt()
    return made
