"""Requests of the Shifter wire, to whichever of the site's gateways answers."""

import http.client
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from cli.addresses import Address, addresses
from cli.errors import UnexpectedAnswerError, UnreachableError

MAX_BODY: Final = 64 << 20

Credential = Callable[[], str | None]
"""A fresh credential for each request: the gateway takes none twice. None: the public."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what the gateway sent, to the letter."""

    status: int
    text: str

    @property
    def body(self) -> dict[str, Any]:
        try:
            content = json.loads(self.text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise UnexpectedAnswerError(
                "the answer is no JSON object: is imageGateway= in udiRoot.conf the address of an "
                "image gateway?"
            )
        return content

    @property
    def error(self) -> str:
        """Why it was refused."""
        try:
            body = self.body
        except UnexpectedAnswerError:
            return f"the gateway answered with status {self.status}"
        return str(body.get("error") or body.get("detail") or f"status {self.status}")


class Gateways:
    """The gateways of one site over one catalog; the one that answered last is asked first."""

    def __init__(self, urls: Sequence[str], timeout: float, credential: Credential) -> None:
        found = [address for url in urls for address in addresses(url)]
        self._addresses = random.sample(found, len(found))  # users share them evenly
        self._timeout = timeout
        self._credential = credential

    def ask(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        credential: Credential | None = None,
    ) -> Answer:
        """UnreachableError where none answers; trouble of one alone is another's to answer."""
        prove = credential or self._credential
        target = "/".join(("/api", *(quote(part, safe="") for part in path), ""))
        payload = json.dumps(body, separators=(",", ":")) if body else ""
        tried: list[str] = []
        for _ in range(len(self._addresses)):
            address = self._addresses[0]
            try:
                answer = self._asked(address, method, target, payload, prove())
            except (OSError, http.client.HTTPException) as exc:
                tried.append(f"{address.name} ({_why(exc)})")
            else:
                if answer.status < 500 or len(tried) == len(self._addresses) - 1:
                    return answer
                tried.append(f"{address.name} (status {answer.status})")
            self._addresses.append(self._addresses.pop(0))
        raise UnreachableError(f"no image gateway answers at {', '.join(tried)}")

    def _asked(
        self, address: Address, method: str, target: str, payload: str, credential: str | None
    ) -> Answer:
        headers = {"Accept": "*/*", "User-Agent": "shifterimg"}
        if credential is not None:
            headers["authentication"] = credential
        if method == "POST":
            headers["Content-Type"] = "application/json"
        connection = address.connect(self._timeout)
        try:
            connection.request(method, target, payload or None, headers)
            with connection.getresponse() as response:
                content = response.read(MAX_BODY + 1)
        finally:
            connection.close()
        if len(content) > MAX_BODY:
            raise UnexpectedAnswerError(f"the answer to {target} exceeds {MAX_BODY} bytes")
        return Answer(response.status, content.decode(errors="replace"))


def _why(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "no answer in time"
    strerror = exc.strerror if isinstance(exc, OSError) else None
    return strerror or str(exc) or type(exc).__name__
