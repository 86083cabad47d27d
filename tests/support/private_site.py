"""A site whose users have logins at a registry, for tests of private images."""

from typing import Any
from urllib.parse import quote

from tests.support.as_user import Somebody
from tests.support.conditions import eventually
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.noise import noise
from tests.support.registry import DebianRegistry
from tests.support.site import Site

ALICE, BOB, CAROL, TEAM = 61001, 61002, 61003, 61900
PASSWORD = "s3cret:with \"quotes' and \\ more"
CAROLS = "another one"
READY = "READY"


def secret_image(text: str = "alice's own") -> BuiltImage:
    return build_image([layer_of({"secret": File(text.encode()), "more": File(noise(100_000))})])


def push(registry: DebianRegistry, image: BuiltImage, name: str = "alice/app") -> str:
    Pusher(registry.url, ("alice", PASSWORD)).push(image, name, "1")
    return f"{registry.host}/{name}:1"


async def log_in(user: Somebody, registry: str, name: str, password: str) -> None:
    body = {"registry": registry, "username": name, "password": password}
    status, view = await user.ask("POST", "/api/v1/logins", body)
    assert status == 200, view


async def pull(user: Somebody, reference: str, **more: object) -> dict[str, Any]:
    """The pull at its end."""
    status, view = await user.ask("POST", "/api/v1/pulls", {"reference": reference, **more})
    assert status in {200, 202}, view

    async def ended() -> bool:
        nonlocal view
        _, view = await user.ask("GET", f"/api/v1/pulls/{view['id']}")
        return view["state"] in {READY, "FAILURE"}

    await eventually(ended, within=30)
    return view


def lookup(reference: str) -> str:
    return f"/api/v1/images/cluster/docker/{quote(reference, safe='')}"


async def pulled_by_alice(site: Site, alice: Somebody, registry: DebianRegistry) -> dict[str, Any]:
    reference = push(registry, secret_image())
    await log_in(alice, registry.host, "alice", PASSWORD)
    view = await pull(alice, reference)
    assert view["state"] == READY, view["failure"]
    assert view["private"] is True
    return view
