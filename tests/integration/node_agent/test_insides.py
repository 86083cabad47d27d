"""The inside of an image, put together once for a job, on the real kernel: who comes in."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.inside.pins import Pins
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from services.node_agent.unmount import clear
from shared.deadline import Deadline
from shared.inside.host import own_directories
from shared.inside.manifest import CMD, ENV, Manifest, read_words
from shared.inside.plan import Bind
from shared.inside.volumes import parse_volumes
from shared.settings.inside import InsideSettings
from tests.support.insides import ENTER, NOBODY, PERSON, enter
from tests.support.squashfs import is_root, mounts_in, place_image, system_tree
from tests.support.users import AS_NOBODY, let_everybody_in, ordinary_environment, ordinary_python

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]

MANIFEST = Manifest(env=("PASSWORD=of the image",), cmd=("sh",))


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A mounted squashfs."""
    let_everybody_in(tmp_path)
    system_tree(tmp_path / "tree")
    placed = place_image(tmp_path / "tree", tmp_path / "images", name="system", codec="zstd")
    target = tmp_path / "mnt"
    target.mkdir()
    LoopMounter(tmp_path / "probe").mount(Source(placed.path), target)
    yield target
    clear(target)


@pytest.fixture
async def insides(tmp_path: Path) -> AsyncIterator[Insides]:
    made = Insides(pins := Pins(tmp_path / "insides"), user_namespaces=True)
    yield made
    await made.adopt(())
    assert pins.names == frozenset()
    assert [found for found in mounts_in(tmp_path) if "insides" in found] == []


async def have(
    insides: Insides, image: Path, *volumes: str, job: str = "7", site: InsideSettings | None = None
) -> Path:
    wanted = parse_volumes(volumes)
    plan = plan_of(str(image), PERSON, site or InsideSettings(), wanted)
    return await insides.have(job, Wish(plan, PERSON, MANIFEST), Deadline.after(30))


async def test_the_user_enters_without_privileges_and_root_as_well(
    insides: Insides, image: Path
) -> None:
    pinned = await have(insides, image)
    script = (
        "cat /etc/os-release; stat -c %u /proc/self; grep -E 'CapEff|NoNewPrivs' /proc/self/status"
    )
    done = enter(pinned, "sh", "-c", script)
    nothing = ["CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    assert done.stdout.split() == ["NAME=tiny", str(NOBODY), *nothing], done.stderr
    as_root = enter(pinned, "sh", "-c", script, who={})
    assert as_root.stdout.split() == ["NAME=tiny", "0", *nothing], as_root.stderr


async def test_nobody_else_enters(insides: Insides, image: Path) -> None:
    pinned = await have(insides, image)
    done = enter(pinned, "true", who={"user": 12345, "group": 12345, "extra_groups": ()})
    assert done.returncode == 125
    assert "Operation not permitted" in done.stderr


async def test_it_says_to_its_user_alone_what_the_image_wants(
    insides: Insides, image: Path
) -> None:
    pinned = await have(insides, image)
    assert read_words((pinned / ENV).read_bytes()) == ["=PASSWORD=of the image"]
    assert read_words((pinned / CMD).read_bytes()) == ["sh"]
    look = "import sys; print(open(sys.argv[1] + '/env').read())"
    assert "of the image" in enter(pinned, code=look).stdout
    other = {"user": 12345, "group": 12345, "extra_groups": ()}
    assert "PermissionError" in enter(pinned, code=look, who=other).stderr
    # Whoever may write there fills what all have in common: /run is memory.
    write = "import os, sys; path = sys.argv[1] + '/env'; os.chmod(path, 0o600); open(path, 'a')"
    assert "PermissionError" in enter(pinned, code=write).stderr


async def test_all_ranks_share_one_and_their_tmp(insides: Insides, image: Path) -> None:
    first, second = await asyncio.gather(have(insides, image), have(insides, image))
    assert first == second
    assert enter(first, "touch", "/tmp/mine").returncode == 0
    assert enter(first, "ls", "/tmp").stdout == "mine\n"
    other = await have(insides, image, job="8")
    assert enter(other, "ls", "/tmp").stdout == ""


async def test_volumes_and_the_site_s_file_systems_are_there(
    insides: Insides, image: Path, tmp_path: Path
) -> None:
    for name in ("scratch", "input", "site"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
        (tmp_path / name / "here").write_text(name)
    site = InsideSettings(site_fs=(str(tmp_path / "site"),))
    volumes = f"{tmp_path}/scratch:/data/deep;{tmp_path}/input:/etcetera:ro"
    pinned = await have(insides, image, volumes, site=site)
    look = f"cat /data/deep/here /etcetera/here {tmp_path}/site/here"
    done = enter(pinned, "sh", "-c", f"{look}; touch /data/deep/new /etcetera/x")
    assert done.stdout == "scratchinputsite"
    assert done.stderr.count("Read-only file system") == 1
    assert (tmp_path / "scratch/new").stat().st_uid == NOBODY


async def test_a_volume_is_opened_with_the_user_s_rights(
    insides: Insides, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    (closed / "secret").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(InsideRefusedError, match="Permission denied"):
        await have(insides, image, f"{closed}/secret:/data")
    with pytest.raises(InsideRefusedError, match="No such file"):
        await have(insides, image, f"{tmp_path}/nothing:/data")
    # By a descriptor of the process that opens: of its own it has none.
    with pytest.raises(InsideRefusedError):
        await have(insides, image, "/proc/self/fd/3:/data")
    # Or by where the agent works.
    (closed / "secret/of-root").touch()
    monkeypatch.chdir(closed / "secret")
    pinned = await have(insides, image, "/proc/self/cwd:/data")
    assert "of-root" not in enter(pinned, "ls", "/data").stdout


async def test_what_is_the_user_s_to_lead_elsewhere_is_opened_with_their_rights(
    insides: Insides, image: Path, tmp_path: Path
) -> None:
    """As a home may be, where the directory around it is theirs."""
    (tmp_path / "closed/open").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "home").symlink_to(tmp_path / "closed/open")
    plan = plan_of(str(image), PERSON, InsideSettings())
    for name, as_user in (("/alone", True), ("/by-root", False)):
        bind = Bind(f"{tmp_path}/home", name, optional=True, as_user=as_user)
        plan = replace(plan, mounts=(*plan.mounts, bind))
    pinned = await insides.have("7", Wish(plan, PERSON, MANIFEST), Deadline.after(30))
    done = enter(pinned, "sh", "-c", "ls -d /by-root /alone")
    assert done.stdout == "/by-root\n", done.stderr
    (own,) = own_directories(replace(PERSON, home="/home/me"))
    assert own.as_user


LOCKED = """
import os, sys
from pathlib import Path
from shared import linux
from shared.inside.enter import join
join(Path(sys.argv[1]))
bind = linux.MS_REMOUNT | linux.MS_BIND
for what in (
    lambda: linux.mount("none", "/bin", flags=bind | linux.MS_NOSUID | linux.MS_NODEV),
    lambda: linux.mount("none", "/bin", flags=bind | linux.MS_RDONLY | linux.MS_NOSUID),
    lambda: linux.mount("none", "/bin", flags=bind | linux.MS_RDONLY | linux.MS_NODEV),
    lambda: linux.umount("/bin", linux.MNT_DETACH),
    lambda: linux.umount("/proc", linux.MNT_DETACH),
    lambda: linux.umount("/", linux.MNT_DETACH),
):
    try:
        what()
        print("ALLOWED")
    except OSError:
        print("refused")
"""


async def test_even_with_all_capabilities_of_their_namespace_users_change_no_mount(
    insides: Insides, image: Path
) -> None:
    done = enter(await have(insides, image), code=LOCKED)
    assert done.stdout.split() == ["refused"] * 6, done.stderr


async def test_it_ends_with_its_job_and_whoever_is_inside_goes_on(
    insides: Insides, image: Path, tmp_path: Path
) -> None:
    pinned = await have(insides, image)
    script = "echo in; read x; cat /etc/os-release"
    rank = subprocess.Popen(
        [ordinary_python(), "-c", ENTER, pinned, "sh", "-c", script],
        env=ordinary_environment(), cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, **AS_NOBODY,
    )  # fmt: skip
    assert rank.stdout is not None
    assert rank.stdout.readline() == "in\n"
    await insides.end("7")
    assert not pinned.exists()
    assert enter(pinned, "true").returncode == 125
    out, _ = rank.communicate("\n", timeout=30)
    assert out == "NAME=tiny\n"
    assert not [found for found in mounts_in(tmp_path) if str(pinned) in found]


async def test_another_agent_takes_over_what_running_jobs_have(
    insides: Insides, image: Path, tmp_path: Path
) -> None:
    kept, gone = await have(insides, image, job="7"), await have(insides, image, job="8")
    following = Insides(Pins(tmp_path / "insides"), user_namespaces=True)
    await following.adopt(["7"])
    assert await have(following, image, job="7") == kept
    assert enter(kept, "cat", "/etc/os-release").returncode == 0
    assert not gone.exists()


async def test_nothing_is_left_of_one_that_fails(insides: Insides, tmp_path: Path) -> None:
    with pytest.raises(InsideRefusedError):
        await have(insides, tmp_path / "no image")
    assert list((tmp_path / "insides").iterdir()) == []


async def test_the_host_sees_nothing_of_what_is_mounted(insides: Insides, image: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text().splitlines()
    await have(insides, image)
    after = Path("/proc/self/mountinfo").read_text().splitlines()
    new = [Path(line.split()[4]) for line in after if line not in before]
    assert {path.name for path in new} == {"insides", "mnt", "user", "user-mnt"}
