"""`dray convert` that is interrupted, or killed, in the middle of each of its steps."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.conditions import eventually
from tests.support.dray_convert import Dray, dray_convert, left_beside, partials
from tests.support.images import Pusher, build_image, layer_from_tar
from tests.support.packers import alive
from tests.support.packing import tar_of
from tests.support.registry import DebianRegistry

LOWER = tar_of(("d/gone", b"x" * 300_000), ("d/kept", bytes(range(256)) * 2000))
UPPER = tar_of(("d/.wh.gone", b""), ("link", b"a file now"))
IMAGE = build_image([layer_from_tar(LOWER), layer_from_tar(UPPER, "zstd")])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        Pusher(registry.url).push(IMAGE, "group/tool", "1.0")
        yield registry


@pytest.fixture
def reference(registry: DebianRegistry) -> str:
    return f"docker:{registry.host}/group/tool:1.0"


@pytest.fixture
def dray(tmp_path: Path) -> Dray:
    return dray_convert(tmp_path)


STEPS = (
    "services.converter.conversion.plan_image",
    "cli.convert.materialise",
)
"""What plans and weaves; both look at `cancelled`."""


def at_step(step: str, then: str) -> str:
    """Code that comes upon us when this step has done its work, or before it begins."""
    module, _, name = step.rpartition(".")
    return f"""
import os, {module} as module
real = module.{name}
def then(*args, **kwargs):
{then}
module.{name} = then
"""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_leaves_nothing_behind(
    number: signal.Signals, step: str, reference: str, dray: Dray, tmp_path: Path
) -> None:
    out = tmp_path / "out.sqfs"
    out.write_bytes(b"older")
    interrupted = at_step(
        step,
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    assert kwargs['cancelled'].wait(20)\n"
        "    return real(*args, **kwargs)",
    )
    done = dray(reference, out, first=interrupted)
    assert done.returncode == 128 + number
    assert done.stderr.startswith("dray: interrupted")
    assert out.read_bytes() == b"older"
    assert partials(tmp_path) == []
    assert dray(reference, out, "-q").returncode == 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_being_killed_the_same_command_makes_the_same_bytes(
    when: str, step: str, reference: str, dray: Dray, tmp_path: Path
) -> None:
    expected = tmp_path / "expected.sqfs"
    assert dray(reference, expected, "--cache", tmp_path / "other").returncode == 0
    out = tmp_path / "out.sqfs"
    work = "" if when == "before" else "    real(*args, **kwargs)\n"
    killed = at_step(step, f"{work}    os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert dray(reference, out, first=killed).returncode == -signal.SIGKILL
    assert not out.exists()
    if "materialise" in step:
        assert len(left_beside(out)) == 1
    # What others are writing beside us stays.
    stranger = tmp_path / ".other.sqfs.0123456789ab.partial"
    stranger.touch()
    assert dray(reference, out).returncode == 0
    assert out.read_bytes() == expected.read_bytes()
    assert partials(tmp_path) == [stranger]


# What comes upon us when the first bytes of a layer have arrived.
IN_A_LAYER = """
import os, signal
from pathlib import Path
from services.converter.packers.work import Work
real = Work.write
async def write(work, chunk):
    (nursery,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    Path(os.environ["STARTED"]).write_text(nursery)
    TOLD
    return await real(work, chunk)
Work.write = write
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
async def test_whatever_ends_it_in_a_layer_nothing_is_left(
    number: signal.Signals, reference: str, dray: Dray, tmp_path: Path
) -> None:
    """As a terminal does it: the whole process group is told."""
    out, started = tmp_path / "out.sqfs", tmp_path / "started"
    told = IN_A_LAYER.replace("TOLD", f"os.killpg(0, {int(number)})")
    environment = {**os.environ, "STARTED": str(started)}
    done = dray(reference, out, first=told, start_new_session=True, env=environment)
    if number in {signal.SIGINT, signal.SIGTERM}:
        assert done.returncode == 128 + number
        assert done.stderr.startswith("dray: interrupted")
        assert done.stderr.count("\n") == 1, "nobody else says anything"
    else:
        assert done.returncode == -number
    nursery = int(started.read_text())
    await eventually(lambda: not alive(nursery), within=20)
    assert not list(tmp_path.rglob("*.partial"))
    assert dray(reference, out, "-q").returncode == 0


def test_a_packer_that_is_killed_is_one_clear_line(
    reference: str, dray: Dray, tmp_path: Path
) -> None:
    out, started = tmp_path / "out.sqfs", tmp_path / "started"
    killing = IN_A_LAYER.replace(
        "TOLD",
        """children = Path(f"/proc/{nursery}/task/{nursery}/children")
    while not (packers := children.read_text().split()): pass
    for packer in packers: os.kill(int(packer), signal.SIGKILL)""",
    )
    done = dray(reference, out, first=killing, env={**os.environ, "STARTED": str(started)})
    assert done.returncode == 1
    assert "was killed by SIGKILL, most likely because memory ran out" in done.stderr
    assert done.stderr.count("\n") == 1
    assert dray(reference, out, "-q").returncode == 0
