"""A whole site with users, as those see it who open its dashboard."""

import time
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from services.gateway.auth.compose import SECRET_NAME
from services.gateway.auth.identity import Scope
from services.gateway.auth.secrets import SiteSecret
from services.gateway.auth.tokens import Claims, Tokens
from tests.support.conditions import eventually
from tests.support.site import Site

ADMIN: Final = "service:operator"
ALICE: Final = 61001
BOB: Final = 61002


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A site, and its users by their tokens."""

    site: Site

    @property
    def url(self) -> str:
        return self.site.url

    def token(self, who: str | int = ADMIN, *, seconds: float = 3600.0) -> str:
        """Of an admin by name, or of a user by uid; with less than no time it has expired."""
        uid = who if isinstance(who, int) else None
        now = time.time()
        claims = Claims(
            id=f"{who}",
            name=f"{who}",
            scopes=frozenset({Scope.ADMIN if uid is None else Scope.PULL}),
            issued=now - 7200,
            expires=now + seconds,
            uid=uid,
        )
        secret = SiteSecret.load(self.site.directory / "data" / SECRET_NAME)
        return Tokens(secret).sign(claims)

    async def ask(
        self, method: str, path: str, body: object = None, who: str | int = ADMIN
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self.token(who)}"}
        async with (
            aiohttp.ClientSession(headers=headers) as api,
            api.request(method, f"{self.url}/api/v1{path}", json=body) as answer,
        ):
            return answer.status, await answer.json() if answer.content_length else {}

    async def pull(self, reference: str, who: str | int = ADMIN) -> dict[str, Any]:
        status, view = await self.ask("POST", "/pulls", {"reference": reference}, who)
        assert status in {200, 202}, view
        return view

    async def pulled(self, reference: str, who: str | int = ADMIN) -> dict[str, Any]:
        """The pull at its end."""
        view = await self.pull(reference, who)

        async def ended() -> bool:
            nonlocal view
            _, view = await self.ask("GET", f"/pulls/{view['id']}", who=who)
            return view["state"] in {"READY", "FAILURE"}

        await eventually(ended, within=30)
        return view
