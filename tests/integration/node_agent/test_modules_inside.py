"""A site's modules in a job's image, on the real kernel: what is there, and what is refused."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.adding import modules_for
from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.hooks import HookCall, Hooks
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.inside.pins import Pins
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from services.node_agent.unmount import clear
from shared.deadline import Deadline
from shared.inside.manifest import CHANGES, ENV, Manifest, apply, read_words
from shared.settings.inside import InsideSettings
from tests.support.elves import library, put
from tests.support.insides import NOBODY, PERSON, enter
from tests.support.module_site import ModuleSite
from tests.support.squashfs import is_root, mounts_in, place_image, system_tree
from tests.support.users import let_everybody_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]

LIBRARIES = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu"


@dataclass
class Node:
    """One node with an image, and what its site adds."""

    root: Path
    site: ModuleSite
    insides: Insides
    tree: Path
    image: Path

    def mount(self) -> None:
        """The tree as it is now becomes the image."""
        placed = place_image(self.tree, self.root / "images", name="system", codec="zstd")
        LoopMounter(self.root / "probe").mount(Source(placed.path), self.image)

    async def have(
        self, *modules: str, job: str = "7", label: str = "", env: dict[str, str] | None = None
    ) -> Path:
        labels = {"module": label} if label else {}
        found = modules_for(self.site.site, modules, labels, self.image, env=env)
        plan = plan_of(
            str(self.image), PERSON, InsideSettings(), modules=found.mounts, nodes=found.nodes
        )
        call = HookCall(job, NOBODY, "ab" * 32, self.image)
        hooks = Hooks(call, found.before, found.after)
        wish = Wish(plan, PERSON, Manifest(changes=found.changes), hooks)
        return await self.insides.have(job, wish, Deadline.after(60))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    let_everybody_in(tmp_path)
    (tmp_path / "mnt").mkdir()
    pins = Pins(tmp_path / "insides")
    made = Node(
        tmp_path,
        ModuleSite(tmp_path / "site"),
        Insides(pins, user_namespaces=True),
        system_tree(tmp_path / "tree"),
        tmp_path / "mnt",
    )
    yield made
    await made.insides.adopt(())
    assert pins.names == frozenset()
    clear(pins.directory)
    clear(made.image)
    assert mounts_in(tmp_path) == []


def run(inside: Path, script: str) -> str:
    done = enter(inside, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(inside: Path, **env: str) -> dict[str, str]:
    for name in (ENV, CHANGES):
        apply(read_words((inside / name).read_bytes()), env)
    return env


async def test_what_a_module_adds_is_there(node: Node) -> None:
    host = node.root / "host"
    put(host, {"opt/lib/libx.so.1.2": b"the library", "site.conf": b"as it was", "tool": b""})
    (host / "opt/lib/libx.so.1").symlink_to("libx.so.1.2")
    (host / "opt/libx.so").symlink_to("lib/libx.so.1")
    (host / "tool").write_text("#!/bin/sh\necho a program of the site\n")
    (host / "tool").chmod(0o755)
    node.site.module(
        "site",
        binds=[
            {"from": str(host / "opt"), "to": "/site"},
            # By two links to the file, over a link of the image, in a directory of the image's.
            {"from": str(host / "opt/libx.so"), "to": "/usr/lib/libx.so"},
            {"from": str(host / "missing"), "optional": True},
        ],
        copies=[
            {"from": str(host / "site.conf"), "to": "/etc/site.conf"},
            {"from": str(host / "tool"), "to": "/bin/tool"},
        ],
        devices=["/dev/fus[e]", "/dev/not-there"],
        env={"set": {"SITE": "1"}, "prepend": {"PATH": "/site/bin"}, "unset": ["GONE"]},
    )
    put(node.tree, {"usr/lib/libx.so.0": b"of the image", "usr/lib/other": b"other"})
    (node.tree / "usr/lib/libx.so").symlink_to("libx.so.0")
    node.mount()
    inside = await node.have("site")
    (host / "site.conf").write_text("changed meanwhile")
    assert run(inside, "cat /site/lib/libx.so.1 /usr/lib/libx.so") == "the library" * 2
    assert run(inside, "cat /usr/lib/other /etc/site.conf") == "otheras it was"
    assert run(inside, "tool") == "a program of the site\n"
    assert run(inside, "ls -l /etc/site.conf").startswith("-r--r--r--")
    fuse = os.stat("/dev/fuse").st_rdev  # noqa: PTH116
    assert run(inside, "stat -c '%F %t %T' /dev/fuse").split() == [
        *("character", "special", "file"),
        *(f"{number:x}" for number in (os.major(fuse), os.minor(fuse))),
    ]
    for path in ("/site/new", "/etc/site.conf", "/dev/new"):
        assert "Read-only" in enter(inside, "sh", "-c", f"echo > {path}").stderr
    env = environment(inside, PATH="/bin", GONE="x")
    assert env == {"PATH": "/site/bin:/bin", "SITE": "1"}
    assert not list(node.root.glob("mnt/site*"))


async def test_a_socket_of_a_daemon_of_the_node_is_had(node: Node) -> None:
    node.site.module("daemon", binds=[{"from": str(node.root / "s"), "to": "/run/daemon"}])
    node.mount()
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(node.root / "s"))
        assert run(await node.have("daemon"), "stat -c %F /run/daemon") == "socket\n"


async def test_by_label_by_default_and_switched_off(node: Node) -> None:
    node.site.module("always", default=True, env={"set": {"ALWAYS": "1"}})
    node.site.module("gpu", by_label=True, env={"set": {"GPU": "1"}})
    node.site.module("licence", env={"set": {"LICENCE": "1"}}, conflicts=["gpu"])
    node.mount()
    assert environment(await node.have(label="gpu licence")) == {"ALWAYS": "1", "GPU": "1"}
    assert environment(await node.have("none", label="gpu")) == {}
    assert environment(await node.have("licence", label="gpu")) == {"ALWAYS": "1", "LICENCE": "1"}
    with pytest.raises(InsideRefusedError, match="licence and gpu cannot"):
        await node.have("licence", "gpu")


async def test_devices_as_a_cdi_file_of_the_node_has_them(node: Node) -> None:
    lib = node.root / "driver"
    put(lib, {"libcuda.so.550.1": library("libcuda.so.1", machine=_machine())})
    here = "/usr/lib/driver"
    node.site.describe(
        "nvidia.com/gpu",
        {
            "0": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/zero"}]},
            "1": {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/null"}]},
        },
        env=["NVIDIA_VISIBLE_DEVICES=void"],
        deviceNodes=[{"path": "/dev/caps/fuse", "hostPath": "/dev/fuse"}, {"path": "/dev/null"}],
        mounts=[
            {
                "hostPath": str(lib / "libcuda.so.550.1"),
                "containerPath": f"{here}/libcuda.so.550.1",
                "options": ["ro", "nosuid", "nodev", "bind"],
            }
        ],
        hooks=[
            {
                "hookName": "createContainer",
                "path": "/usr/bin/nvidia-cdi-hook",
                "args": ["nvidia-cdi-hook", *what],
            }
            for what in (
                ["update-ldcache", "--folder", here],
                ["create-symlinks", "--link", f"libcuda.so.1::{here}/libcuda.so"],
            )
        ],
    )
    node.site.module("gpu", cdi=["nvidia.com/gpu=job"], by_label=True)
    node.mount()
    inside = await node.have(label="gpu", env={"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "1"})
    # What is open to all on the node is so here, and it is the very device.
    assert run(inside, "cat /dev/nvidia1; stat -c %t:%T /dev/nvidia1 /dev/caps/fuse").split() == [
        "1:3",
        "a:e5",
    ]
    assert run(inside, "ls /dev | grep nvidia") == "nvidia1\n"
    assert run(inside, f"ls /.dray/lib {here}").split() == [
        *("/.dray/lib:", "libcuda.so", "libcuda.so.1"),
        *(f"{here}:", "libcuda.so.550.1"),
    ]
    assert environment(inside) == {
        "NVIDIA_VISIBLE_DEVICES": "void",
        "LD_LIBRARY_PATH": "/.dray/lib",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    none = await node.have(label="gpu")
    assert "nvidia" not in run(none, "ls /dev")
    assert environment(none) == {}


def _machine() -> int:
    return {"x86_64": 62, "aarch64": 183}[os.uname().machine]


@pytest.fixture
def real_mpi(node: Node) -> Iterator[Path]:
    """Debian's own MPICH and Open MPI."""
    for name in ("libmpich.so.12", "libmpi.so.40"):
        if not (LIBRARIES / name).exists():
            pytest.skip(f"{name} is missing: install libmpich12 and libopenmpi3")
    host = node.root / "host-mpi"
    for kind, names in {"mpich": ("libmpich.so.12",), "openmpi": ("libmpi.so.40",)}.items():
        (host / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(LIBRARIES / name, host / kind / name)
        node.site.module(
            kind,
            mpi=kind,
            binds=[{"from": str(host / kind), "to": f"/site/{kind}"}],
            env={"prepend": {"LD_LIBRARY_PATH": f"/site/{kind}"}},
        )
    yield host
    shutil.rmtree(host)


async def test_the_site_s_mpi_takes_the_place_of_the_image_s(node: Node, real_mpi: Path) -> None:
    inside_path = node.tree / str(LIBRARIES).lstrip("/")
    inside_path.mkdir(parents=True, exist_ok=True)
    shutil.copy(LIBRARIES / "libmpich.so.12", inside_path / "libmpich.so.12.2.2")
    (inside_path / "libmpich.so.12").symlink_to("libmpich.so.12.2.2")
    node.mount()
    inside = await node.have("mpich")
    # The image's own loader says where a program that needs MPICH finds it.
    path = environment(inside)["LD_LIBRARY_PATH"]
    trace = f"LD_TRACE_LOADED_OBJECTS=1 LD_LIBRARY_PATH={path} LD_PRELOAD=libmpich.so.12 /bin/cat"
    assert "/site/mpich/libmpich.so.12" in run(inside, trace)
    without = await node.have()
    trace = "LD_TRACE_LOADED_OBJECTS=1 LD_PRELOAD=libmpich.so.12 /bin/cat"
    assert f"{LIBRARIES}/libmpich.so.12" in run(without, trace)
    with pytest.raises(InsideRefusedError, match=r"MPICH .*, and the module openmpi brings Open"):
        await node.have("openmpi")


async def test_an_image_with_another_mpi_or_an_old_libc_is_told_so(
    node: Node, real_mpi: Path
) -> None:
    shutil.copy(LIBRARIES / "libmpi.so.40", node.tree / "lib/libmpi.so.40")
    node.site.module("future", min_libc="2.999")
    node.mount()
    with pytest.raises(InsideRefusedError, match=r"Open MPI 3, 4 or 5 \(libmpi\.so\.40\), and .*"):
        await node.have("mpich")
    await node.have("openmpi")
    with pytest.raises(InsideRefusedError, match=r"is glibc 2\.\d+, .* needs 2\.999 or later"):
        await node.have("future")


async def test_hooks_around_an_inside(node: Node) -> None:
    log = node.root / "log"

    def hook(text: str) -> list[dict[str, object]]:
        return [{"run": ["/bin/sh", "-c", f"echo {text} >> {log}"]}]

    node.site.module(
        "site",
        before=hook("before $DRAY_JOB_ID $DRAY_INSIDE"),
        after=hook("after $DRAY_USER_ID $(ls $DRAY_INSIDE | grep -c mnt)"),
    )
    bad = "echo 'no licence today' >&2; exit 1"
    node.site.module("early", before=[{"run": ["/bin/sh", "-c", bad]}])
    node.site.module("late", after=[{"run": ["/bin/sh", "-c", bad]}])
    node.mount()
    first, second = await asyncio.gather(node.have("site"), node.have("site"))
    assert first == second
    assert log.read_text() == f"before 7\nafter {NOBODY} 2\n"
    # One that an agent was killed with, before all was done: another one does it all again.
    (first / "whole").unlink()
    assert await node.have("site") == first
    assert log.read_text() == f"before 7\nafter {NOBODY} 2\n" * 2
    for name in ("early", "late"):
        with pytest.raises(InsideRefusedError, match="/bin/sh, failed: no licence today"):
            await node.have(name, job="8")
    assert [path.name for path in (node.root / "insides").glob("8.*")] == []


async def test_an_image_does_not_lead_a_module_to_where_the_system_speaks(node: Node) -> None:
    host = node.root / "host"
    put(host, {"lib/libx.so": b"x"})
    node.site.module("site", binds=[{"from": str(host / "lib"), "to": "/opt/site"}])
    node.site.module("copied", copies=[{"from": str(host / "lib/libx.so"), "to": "/opt/site/x"}])
    node.site.module(
        "meant", copies=[{"from": str(host / "lib/libx.so"), "to": "/etc/ld.so.conf.d/site"}]
    )
    (node.tree / "opt").symlink_to("/etc")
    node.mount()
    for name in ("site", "copied"):
        with pytest.raises(InsideRefusedError, match=r"/opt/site.* is /etc/site.* in this image"):
            await node.have(name)
    assert run(await node.have("meant"), "cat /etc/ld.so.conf.d/site") == "x"


async def test_too_large_for_a_copy_and_no_file(node: Node) -> None:
    big = node.root / "big"
    with big.open("wb") as file:
        file.truncate(200 << 20)
    node.site.module("big", copies=[{"from": str(big)}])
    node.site.module("pipe", copies=[{"from": "/dev/zero", "to": "/zero"}])
    node.site.module("optional", copies=[{"from": str(big), "optional": True}])
    node.mount()
    for name in ("big", "pipe"):
        with pytest.raises(InsideRefusedError, match="no file of at most 128 MiB"):
            await node.have(name)
    assert not enter(await node.have("optional"), "true").stdout
