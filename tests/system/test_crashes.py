"""SIGKILL of any service in any state of a pull: after a restart the pull ends READY.

Every step is held where the test wants it: the download by a gate before the registry, the later
states by freezing the process that would go on.
"""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.images import BuiltImage, Entry, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.packers import alive, children_of
from tests.support.registry import DebianRegistry
from tests.support.site import SERVICES, Site

MEGABYTE = 1 << 20
STATES = ("INIT", "PULLING", "CONVERSION", "TRANSFER")


@pytest.fixture
def image(state: str) -> BuiltImage:
    # So large that placing it takes long enough to be met there.
    size = 48 * MEGABYTE if state == "TRANSFER" else 2 * MEGABYTE
    lower: dict[str, Entry] = {"bin/tool": File(noise(size)), "etc/name": File(b"lower")}
    if state == "CONVERSION":
        # So many names that making the tables takes long enough to be met there.
        lower |= {f"many/{number}": File(b"") for number in range(60_000)}
    upper: dict[str, Entry] = {"etc/name": File(b"upper"), "opt/data": File(noise(MEGABYTE))}
    return build_image([layer_of(lower), layer_of(upper)])


@pytest.fixture
async def gate(tmp_path: Path, image: BuiltImage) -> AsyncIterator[Gate]:
    """A registry with one image, and the gate before it."""
    with DebianRegistry(tmp_path / "registry") as registry:
        Pusher(registry.url).push(image, "team/app", "1")
        async with Gate(registry.port) as gate:
            yield gate


async def bring_to(state: str, site: Site, gate: Gate) -> str:
    """Start a pull, and hold it in that state."""
    if state == "INIT":
        site.freeze("converter")
    if state == "PULLING":
        gate.hold_after(MEGABYTE)
    if state in {"CONVERSION", "TRANSFER"}:
        site.freeze("distributor")
    pull: str = (await site.pull(f"{gate.host}/team/app:1"))["id"]
    await site.reached(pull, state)
    return pull


async def check_the_end(site: Site, pull: str, image: BuiltImage) -> None:
    view = await site.reached(pull, "READY", "FAILURE")
    assert view["state"] == "READY", view["failure"]
    assert view["image"]["config_digest"] == image.config_digest
    assert site.check_images() == 1
    await eventually(lambda: not site.leftovers(), within=10)


@pytest.mark.parametrize("victim", SERVICES)
@pytest.mark.parametrize("state", STATES)
async def test_a_killed_service_costs_no_pull(
    state: str, victim: str, tmp_path: Path, broker_url: str, gate: Gate, image: BuiltImage
) -> None:
    async with Site(tmp_path / "site", {"bus": {"url": broker_url}}) as site:
        await site.start()
        pull = await bring_to(state, site, gate)
        site.kill(victim)
        site.thaw_all()
        gate.open()
        await site.start(victim)
        await check_the_end(site, pull, image)


@pytest.mark.parametrize("state", STATES)
async def test_a_killed_dray_up_costs_no_pull(
    state: str, tmp_path: Path, gate: Gate, image: BuiltImage
) -> None:
    """One process, a bus that forgets: the catalog alone brings the pull back."""
    async with Site(tmp_path / "site") as site:
        await site.up()
        if state in {"INIT", "PULLING"}:
            gate.hold_after(MEGABYTE if state == "PULLING" else 0)
        pull = (await site.pull(f"{gate.host}/team/app:1"))["id"]
        if state != "INIT":
            await site.reached(pull, state)
        site.kill("up")
        gate.open()
        await site.up()
        await check_the_end(site, pull, image)


@pytest.mark.parametrize("state", ["PULLING"])
@pytest.mark.parametrize("victims", ["packers", "nursery"])
async def test_killed_processes_that_pack_cost_no_pull(
    state: str, victims: str, tmp_path: Path, gate: Gate, image: BuiltImage
) -> None:
    """As the kernel kills them where memory runs out: the service goes on, and tries again."""
    async with Site(tmp_path / "site") as site:
        await site.up()
        gate.hold_after(MEGABYTE)
        pull = (await site.pull(f"{gate.host}/team/app:1"))["id"]
        await site.reached(pull, state)
        (nursery,) = await eventually(lambda: children_of(site.pid("up")), within=10)
        packers = await eventually(lambda: children_of(nursery), within=10)
        await eventually(site.leftovers, within=10)
        for victim in packers if victims == "packers" else {nursery}:
            os.kill(victim, signal.SIGKILL)
        gate.open()
        await check_the_end(site, pull, image)
        if victims == "packers":  # which outlive a nursery
            assert (await site.pull_view(pull))["tries"] == 2
        assert await site.stop("up") == 0
    await eventually(lambda: not any(map(alive, {nursery, *packers})), within=10)
