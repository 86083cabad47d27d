"""A token server as registries are set up with: signs what a user may do, as a JWT (RS256).

Who shows a password that is right may pull and push everything but `locked/…`; everybody may pull
`public/…`. An identity token (OAuth 2's refresh token) is as good as its user's password.
"""

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from aiohttp import BasicAuth, web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

SERVICE = "tests"


class TokenServer:
    """`async with TokenServer(...)`, before the registry that shall trust it starts."""

    def __init__(
        self,
        directory: Path,
        users: Mapping[str, str],
        *,
        identities: Mapping[str, str] | None = None,
        lifetime: int = 300,
    ) -> None:
        self._users = users
        self._identities = identities or {}
        self._lifetime = lifetime
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )
        self._chain = [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()]
        self._bundle = directory / "tokens.pem"
        directory.mkdir(parents=True, exist_ok=True)
        self._bundle.write_bytes(certificate.public_bytes(Encoding.PEM))
        app = web.Application()
        app.router.add_get("/token", self._by_password)
        app.router.add_post("/token", self._by_identity)
        self._server = TestServer(app, host="127.0.0.1")
        self.issued: list[tuple[str, str]] = []
        """To whom, and for what."""

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._server.close()

    def for_registry(self) -> dict[str, str]:
        """As its configuration names it."""
        return {
            "realm": str(self._server.make_url("/token")),
            "service": SERVICE,
            "issuer": SERVICE,
            "rootcertbundle": str(self._bundle),
        }

    async def _by_password(self, request: web.Request) -> web.Response:
        user = ""
        if shown := request.headers.get("Authorization"):
            login = BasicAuth.decode(shown, encoding="utf-8")
            if self._users.get(login.login) != login.password:
                return web.json_response({"errors": [{"code": "UNAUTHORIZED"}]}, status=401)
            user = login.login
        return self._answer(user, request.query.get("scope", ""))

    async def _by_identity(self, request: web.Request) -> web.Response:
        form = await request.post()
        user = self._identities.get(str(form.get("refresh_token")))
        if form.get("grant_type") != "refresh_token" or user is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return self._answer(user, str(form.get("scope", "")))

    def _answer(self, user: str, scope: str) -> web.Response:
        self.issued.append((user, scope))
        now = int(time.time())
        allowed = [found for each in scope.split() if (found := _allowed(user, each))]
        claims = {
            "iss": SERVICE,
            "aud": SERVICE,
            "sub": user,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self._lifetime,
            "jti": f"{now}-{len(self.issued)}",
            "access": allowed,
        }
        token = self._signed({"typ": "JWT", "alg": "RS256", "x5c": self._chain}, claims)
        return web.json_response({"token": token, "expires_in": self._lifetime})

    def _signed(self, header: object, claims: object) -> str:
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), SHA256())
        return f"{text}.{_encoded(signature)}"


def _allowed(user: str, scope: str) -> dict[str, object] | None:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    if name.startswith("locked/") and user != "owner":
        return None
    if not user and not (name.startswith("public/") and actions == "pull"):
        return None
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
