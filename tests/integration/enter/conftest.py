"""Who enters, and what they enter."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.entering import ORDINARY, REFUSED, ROOT, SHARED_PLACE, Caller
from tests.support.squashfs import mounts_in, system_tree
from tests.support.users import let_everybody_in


@pytest.fixture(params=[ROOT, ORDINARY])
def caller(request: pytest.FixtureRequest) -> Caller:
    found: Caller = request.param
    if found.name == "ordinary":
        probe = "import sys; from cli import enter\ntry: enter.make_namespaces()\n"
        probe += f"except enter.NamespacesRefusedError as exc: print(exc); sys.exit({REFUSED})"
        done = found.run(Path("/"), code=probe)
        if done.returncode == REFUSED:
            pytest.skip(done.stdout)
    return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An unpacked image that everybody may read."""
    place = tmp_path_factory.mktemp("image")
    let_everybody_in(place)
    root = system_tree(place / "root")
    (root / SHARED_PLACE.relative_to("/")).mkdir()
    yield root
    assert mounts_in(root) == []


@pytest.fixture
def hostile(image: Path, tmp_path: Path) -> Path:
    """A copy of the image, to be made worse."""
    let_everybody_in(tmp_path)
    return Path(shutil.copytree(image, tmp_path / "hostile", symlinks=True))
