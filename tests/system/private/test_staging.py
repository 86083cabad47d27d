"""A scheduler stages in for its users: with their logins, what is theirs, and nobody else may."""

import asyncio
import sys

import pytest

from tests.support.as_user import Somebody
from tests.support.private_site import ALICE, BOB, PASSWORD, READY, log_in, lookup, push
from tests.support.private_site import secret_image as secret
from tests.support.registry import DebianRegistry
from tests.support.site import Site

pytestmark = pytest.mark.root


async def staged(site: Site, uid: int, reference: str) -> tuple[int, str, str]:
    """`dray hook stage`, as slurmctld's user runs it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from cli.main import main; main()"),
        *("hook", "stage", "--uid", str(uid), "--wait", "60", f"--url=unix://{site.socket}"),
        *("--", reference),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_private_image_is_staged_in_for_its_owner_alone(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    reference = push(registry, secret())
    await log_in(alice, registry.host, "alice", PASSWORD)

    code, out, err = await staged(site, BOB, reference)
    assert (code, out) == (1, "")
    assert err.startswith(f"dray: {reference} cannot be had: ")
    assert err.count("\n") == 1

    code, out, err = await staged(site, ALICE, reference)
    assert code == 0, err
    status, mine = await alice.ask("GET", lookup(reference))
    assert (status, mine["private"], mine["owner"]) == (200, True, ALICE)
    pinned = f"{mine['id']},{mine['content_digest']},{mine['size']}"
    assert out == f"DRAY_IMAGE_ID={mine['id']}\nDRAY_IMAGES={pinned}\n"
    assert (await bob.ask("GET", lookup(reference)))[0] == 404
    # Again, as a scheduler that was restarted asks.
    assert await staged(site, ALICE, reference) == (0, out, "")


async def test_only_operators_ask_for_others(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    reference = push(registry, secret())
    await log_in(alice, registry.host, "alice", PASSWORD)
    body = {"reference": reference, "uid": ALICE}
    status, problem = await bob.ask("POST", "/api/v1/pulls", body)
    assert (status, problem["code"]) == (403, "not_allowed")
    status, view = await alice.ask("POST", "/api/v1/pulls", body)  # her own id changes nothing
    assert (status, view["requested_by"]) == (202, str(ALICE))
    assert view["state"] != READY
