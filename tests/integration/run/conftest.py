"""One node for all of these tests, with an agent that runs as root, and two images."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.node_agent.unmount import clear
from shared.image.recipe import ImageConfig
from tests.support.agents import agent_process, serving
from tests.support.run_site import Node, RunPlace, shell_image
from tests.support.scripted_gateway import says, scripted_gateway
from tests.support.squashfs import mounts_in
from tests.support.users import AS_NOBODY, let_everybody_in, ordinary_environment, ordinary_python
from tests.support.views import image_view

ENTRYPOINT = 'echo "entrypoint $*"; exec "$@"'
SOLVER = ImageConfig(
    env=("PATH=/bin", "OF=image", "SITE=image", "MODULE=image"),
    entrypoint=("sh", "-c", ENTRYPOINT, "entry"),
    cmd=("cat", "/greeting"),
    workdir="/work",
)
PLAIN = ImageConfig(cmd=("cat", "/greeting"))
_PROBE = "from cli.enter import EnterError, make_namespaces\ntry: make_namespaces()\n"
_PROBE += "except EnterError as exc: print(exc); raise SystemExit(1)"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    root = tmp_path_factory.mktemp("run")
    let_everybody_in(root)
    modules, own, site = root / "modules", root / "own", root / "site"
    for directory in (modules, own, site):
        directory.mkdir(mode=0o755)
    (site / "tool").write_text("of the module\n")
    binds = f"binds: [{{from: {site}/tool, to: /tool/file}}]\n"
    env = "env: {set: {MODULE: module, SITE: module}, prepend: {PATH: /tool/bin}}\n"
    (modules / "tool.yaml").write_text(binds + env)
    inside = {"modules": str(modules), "site_fs": [str(site)], "env": {"set": {"SITE": "site"}}}
    place = RunPlace(root, inside=inside)
    solver, plain = shell_image(place, "solver", SOLVER), shell_image(place, "plain", PLAIN)
    with scripted_gateway() as (url, gateway), agent_process(place, "loop") as process:
        asyncio.run(serving(place, process))
        found = Node(place, own, site, solver, plain, url, gateway)
        for name, image, config in (("solver%3A1", solver, SOLVER), ("plain%3A2", plain, PLAIN)):
            view = image_view(
                id=image.image_id,
                content_digest=image.content_digest,
                size=image.size,
                **config.model_dump(exclude={"user"}),
            )
            for path in (f"docker/{name}", f"docker/docker%3A{name}", f"id/{image.image_id}"):
                gateway.on(f"GET /api/v1/images/local/{path}", says(view))
        yield found
    left = mounts_in(root)
    for point in left:
        clear(Path(point))


@pytest.fixture
def alone() -> None:
    """Skips where ordinary users may make no namespaces of their own."""
    probe = subprocess.run(
        [ordinary_python(), "-c", _PROBE],
        env=ordinary_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **AS_NOBODY,
    )
    if probe.returncode != 0:
        pytest.skip(probe.stdout or probe.stderr)
