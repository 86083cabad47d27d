"""A node's directories, which no test leaves a mount in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.node_agent.unmount import clear
from tests.support.agents import Place
from tests.support.squashfs import mounts_in
from tests.support.users import let_everybody_in


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("node")
    let_everybody_in(root)
    yield Place(root)
    left = mounts_in(root)
    for point in left:
        clear(Path(point))
    assert left == []
