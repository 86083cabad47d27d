"""Devices as CDI files describe them, and those of them that a job was given."""

import platform
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as with_any
from hypothesis import strategies as st

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.adding import Additions, modules_for
from services.node_agent.inside.cdi_spec import CdiSpec
from services.node_agent.inside.gpus import given, renumbered
from services.node_agent.inside.site_files import load
from shared.inside.environment import compose
from shared.inside.plan import Bind, Node
from tests.support.elves import library, put
from tests.support.module_site import ModuleSite

# As nvidia-ctk writes it, in YAML: what all GPUs need once, and two GPUs.
NVIDIA = """
---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/full
  - hostPath: /dev/null
    path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, create-symlinks,
           --link, libcuda.so.1::@LIB@/libcuda.so,
           --link, ../libcuda.so.1::@LIB@/vdpau/libcuda_too.so.1,
           --link, ../nothing::@LIB@/dangling,
           --link=../nvidiactl::/dev/by-path/pci-card]
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, update-ldcache, --folder, @LIB@]
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, chmod, --mode, "755", --path, /dev/dri]
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=550.1]
    env: [NVIDIA_CTK_DEBUG=false]
  mounts:
  - hostPath: @LIB@/libcuda.so.550.1
    containerPath: @LIB@/libcuda.so.550.1
    options: [ro, nosuid, nodev, rbind, rprivate]
  - hostPath: @LIB@/libcuda32.so.550.1
    containerPath: @LIB@/libcuda32.so.550.1
    options: [ro, nosuid, nodev, bind]
    type: bind
  - hostPath: @LIB@/settings
    containerPath: /run/nvidia/settings
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/nvidia0, hostPath: /dev/zero, permissions: rw}]
- name: 1
  containerEdits:
    deviceNodes: [{path: /dev/nvidia1, hostPath: /dev/random}]
- name: GPU-1a2b3c4d-5e6f
  containerEdits:
    deviceNodes: [{path: /dev/nvidia1, hostPath: /dev/random}]
- name: all
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: /dev/zero}
    - {path: /dev/nvidia1, hostPath: /dev/random}
    additionalGids: [44]
"""


@pytest.fixture
def site(tmp_path: Path) -> ModuleSite:
    return ModuleSite(tmp_path)


@pytest.fixture
def lib(tmp_path: Path, site: ModuleSite) -> Path:
    """The driver's libraries, and the file that describes them."""
    put(
        tmp_path,
        {
            "lib/libcuda.so.550.1": library("libcuda.so.1", machine=_machine()),
            "lib/libcuda32.so.550.1": library("libcuda.so.1", machine=3),
            "lib/settings": b"",
        },
    )
    file = site.cdi / "nvidia.yaml"
    file.write_text(NVIDIA.replace("@LIB@", str(tmp_path / "lib")))
    return tmp_path / "lib"


def _machine() -> int:
    return {"x86_64": 62, "aarch64": 183}.get(platform.machine(), 62)


def wanted(site: ModuleSite, *cdi: str, **env: str) -> Additions:
    site.module("gpu", cdi=list(cdi))
    return modules_for(site.site, ["gpu"], {}, Path("/nothing"), env=env)


def refusal(site: ModuleSite, *cdi: str, **env: str) -> str:
    with pytest.raises(InsideRefusedError) as caught:
        wanted(site, *cdi, **env)
    return caught.value.message


def test_all_devices_of_nvidia(site: ModuleSite, lib: Path) -> None:
    found = wanted(site, "nvidia.com/gpu=all")
    assert set(found.nodes) == {
        Node("/dev/full"),
        Node("/dev/nvidiactl", "/dev/null"),
        Node("/dev/by-path/pci-card", "/dev/null"),
        Node("/dev/nvidia0", "/dev/zero"),
        Node("/dev/nvidia1", "/dev/random"),
    }
    cuda = str(lib / "libcuda.so.550.1")
    assert set(found.mounts) == {
        Bind(cuda, cuda, read_only=True),
        Bind(str(lib / "libcuda32.so.550.1"), str(lib / "libcuda32.so.550.1"), read_only=True),
        Bind(str(lib / "settings"), "/run/nvidia/settings"),
        # What ldconfig and links would have done, where nothing of the image's is.
        Bind(cuda, "/.dray/lib/libcuda.so.1", read_only=True),
        Bind(cuda, "/.dray/lib/libcuda.so", read_only=True),
        Bind(cuda, str(lib / "vdpau/libcuda_too.so.1"), read_only=True),
    }
    env = compose({}, ["LD_LIBRARY_PATH=/image"], changes=found.changes)
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert env["LD_LIBRARY_PATH"] == "/.dray/lib:/image"


def test_devices_by_name(site: ModuleSite, lib: Path) -> None:
    nodes = {node.path for node in wanted(site, "nvidia.com/gpu=1").nodes}
    assert {"/dev/nvidia1", "/dev/nvidiactl"} <= nodes
    assert "/dev/nvidia0" not in nodes
    assert "nvidia.com/gpu=7 is not described" in refusal(site, "nvidia.com/gpu=7")
    assert "no file in" in refusal(site, "vendor.com/thing=all")


GIVEN: list[tuple[dict[str, str], set[str]]] = [
    ({"SLURM_JOB_GPUS": "1"}, {"/dev/nvidia1"}),
    ({"SLURM_STEP_GPUS": "0-1", "SLURM_JOB_GPUS": "0"}, {"/dev/nvidia0", "/dev/nvidia1"}),
    # Under a cgroup the vendor's variable counts from 0, whatever the node calls it.
    ({"SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "0"}, {"/dev/nvidia1"}),
    ({"CUDA_VISIBLE_DEVICES": "0"}, {"/dev/nvidia0"}),
    ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b3c4d-5e6f"}, {"/dev/nvidia1"}),
    ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b"}, {"/dev/nvidia1"}),
    ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, {"/dev/nvidia1"}),
    ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, set()),
    ({"CUDA_VISIBLE_DEVICES": ""}, set()),
    ({"ROCR_VISIBLE_DEVICES": "0"}, set()),
    ({}, set()),
]


@pytest.mark.parametrize(("env", "nodes"), GIVEN)
def test_the_devices_that_the_scheduler_gave(
    site: ModuleSite, lib: Path, env: dict[str, str], nodes: set[str]
) -> None:
    found = wanted(site, "nvidia.com/gpu=job", **env)
    gpus = {"/dev/nvidia0", "/dev/nvidia1"}
    assert {node.path for node in found.nodes} & gpus == nodes
    assert bool(found.mounts) == bool(nodes)


def test_a_device_that_is_given_and_not_described(site: ModuleSite, lib: Path) -> None:
    message = refusal(site, "nvidia.com/gpu=job", SLURM_JOB_GPUS="5")
    assert "gave nvidia.com/gpu=5" in message
    assert "generate it anew" in message


def test_the_numbers_of_a_job_that_sees_only_its_own() -> None:
    def number(given_numbers: str, value: str) -> str | None:
        ids = given("nvidia.com", {"SLURM_JOB_GPUS": given_numbers})
        env = {"CUDA_VISIBLE_DEVICES": value}
        return renumbered("nvidia.com", ids, env).get("CUDA_VISIBLE_DEVICES")

    assert number("4,6", "6,4") == "1,0"
    assert number("4,6", "6") == "1"
    assert number("4,6", "0,1") is None  # under a cgroup they count from 0 already
    assert number("0,1", "1") is None
    assert number("4", "GPU-1a2b") is None
    assert renumbered("other.com", ("1",), {}) == {}


def test_amd(site: ModuleSite) -> None:
    # As amd-ctk writes it: /dev/kfd with each of them.
    kfd, render = {"path": "/dev/kfd", "hostPath": "/dev/null"}, "/dev/dri/renderD12"
    each: list[dict[str, Any]] = [
        {"path": f"{render}{8 + n}", "hostPath": "/dev/zero", "type": "c", "major": 1, "minor": 5,
         "fileMode": 8624, "permissions": "rwm", "uid": 0, "gid": 109}
        for n in range(2)
    ]  # fmt: skip
    site.describe(
        "amd.com/gpu",
        {str(n): {"deviceNodes": [node, kfd]} for n, node in enumerate(each)},
    )
    everything = wanted(site, "amd.com/gpu=all").nodes  # no device is called so: it is all of them
    assert {node.path for node in everything} == {f"{render}8", f"{render}9", "/dev/kfd"}
    found = wanted(site, "amd.com/gpu=job", ROCR_VISIBLE_DEVICES="1")
    assert {node.path for node in found.nodes} == {f"{render}9", "/dev/kfd"}
    assert found.changes[1].set == {"ROCR_VISIBLE_DEVICES": "0"}


def test_the_later_directory_says_what_a_device_is(site: ModuleSite) -> None:
    def described(path: str) -> dict[str, Any]:
        return {"one": {"deviceNodes": [{"path": path}]}}

    site.describe("vendor.com/dev", described("/dev/null"))
    assert wanted(site, "vendor.com/dev=one").nodes == (Node("/dev/null"),)
    site.describe("vendor.com/dev", described("/dev/zero"), run=True)
    assert wanted(site, "vendor.com/dev=one").nodes == (Node("/dev/zero"),)
    (site.run_cdi / "dev.json").rename(site.cdi / "other.json")
    assert "describe the same device" in refusal(site, "vendor.com/dev=one")


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ({"hooks": [{"hookName": "createRuntime", "path": "/bin/vendor", "args": ["v", "go"]}]},
         "a hook that is not run here: /bin/vendor go"),
        ({"hooks": [{"hookName": "x", "path": "/bin/sh", "args": ["sh", "update-ldcache"]}]},
         "a hook that is not run here: /bin/sh"),
        ({"mounts": [{"hostPath": "none", "containerPath": "/x"}]}, "no file in"),
        ({"mounts": [{"hostPath": "/proc", "containerPath": "/x", "type": "tmpfs"}]},
         "wants a tmpfs at /x"),
        ({"mounts": [{"hostPath": "/not/there", "containerPath": "/x"}]},
         "names /not/there, which this node does not have"),
        ({"deviceNodes": [{"path": "/etc/passwd"}]}, "not below /dev"),
        ({"deviceNodes": [{"path": "/dev/../etc/passwd"}]}, "no file in"),
        ({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/not-there"}]}, "/dev/not-there"),
        ({"env": ["NOVALUE"]}, "no file in"),
    ],
)  # fmt: skip
def test_what_is_refused(site: ModuleSite, edits: dict[str, Any], why: str) -> None:
    site.describe("vendor.com/dev", {"one": edits})
    assert why in refusal(site, "vendor.com/dev=one")


def test_a_broken_file_breaks_nothing_else(site: ModuleSite) -> None:
    site.describe("vendor.com/dev", {"one": {"deviceNodes": [{"path": "/dev/null"}]}})
    (site.cdi / "broken.json").write_text("{")
    (site.cdi / "ignored.txt").write_text("{")
    assert wanted(site, "vendor.com/dev=one").nodes == (Node("/dev/null"),)
    assert "broken.json is no YAML" in refusal(site, "other.com/dev=one")


@with_any(st.binary(max_size=200) | st.text(alphabet='{}[]:,-\n aé"0', max_size=80).map(str.encode))
def test_no_bytes_raise(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        assert isinstance(load(Path(file.name), CdiSpec), str | CdiSpec)


@with_any(st.text(max_size=40), st.text(max_size=40))
def test_no_variables_raise(slurm: str, cuda: str) -> None:
    env = {"SLURM_JOB_GPUS": slurm, "CUDA_VISIBLE_DEVICES": cuda}
    ids = given("nvidia.com", env)
    assert len(ids) <= 256
    assert renumbered("nvidia.com", ids, env).keys() <= {"CUDA_VISIBLE_DEVICES"}
