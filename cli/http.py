"""JSON over HTTP with the standard library alone, so that a status command starts at once."""

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from cli.errors import RefusedError, UnexpectedAnswerError
from shared.tracing import is_traceparent

Json = dict[str, Any]
Connect = Callable[[float], http.client.HTTPConnection]
"""Make a connection whose every read and write may take so many seconds."""

MAX_BODY: Final = 64 << 20
MAX_LINE: Final = 4 << 20
ERRORS: Final = "application/problem+json"


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a local socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Answer:
    """A success; `body` is empty where the answer had none."""

    status: int
    body: Json


def call(
    connect: Connect,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    timeout: float,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """One request. OSError and HTTPException mean that nobody answered."""
    with _sent(connect(timeout), method, path, body, headers) as response:
        content = response.read(MAX_BODY + 1)
        if len(content) > MAX_BODY:
            raise UnexpectedAnswerError(f"the answer to {method} {path} exceeds {MAX_BODY} bytes")
        return Answer(response.status, _decoded(content, method, path) if content else {})


def events(
    connect: Connect,
    path: str,
    silence: float,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[str, Json]]:
    """Server-sent events, kind and data, until the stream ends or is silent for too long."""
    with _sent(connect(silence), "GET", path, None, headers) as response:
        kind, data = "message", list[bytes]()
        while line := response.readline(MAX_LINE):
            text = line.rstrip(b"\r\n")
            if text.startswith(b"data:"):
                data.append(text[5:])
            elif text.startswith(b"event:"):
                kind = text[6:].strip().decode(errors="replace")
            elif not text and data:
                yield kind, _decoded(b"\n".join(data), "GET", path)
                kind, data = "message", []


@contextmanager
def opened(
    connect: Connect, path: str, silence: float, headers: Mapping[str, str]
) -> Iterator[http.client.HTTPResponse]:
    """A long answer, to be read as it comes; OSError and HTTPException where it breaks."""
    with _sent(connect(silence), "GET", path, None, headers) as response:
        yield response


@contextmanager
def _sent(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    given: Mapping[str, str],
) -> Iterator[http.client.HTTPResponse]:
    try:
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": "dray"}
        headers.update(_trace())
        headers.update(given)
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, path, payload, headers)
        with connection.getresponse() as response:
            if response.status >= 300:
                raise _problem(response, method, path)
            yield response
    finally:
        connection.close()


def _trace() -> dict[str, str]:
    """Whoever runs us may be tracing what they do: then this is a part of it."""
    given = os.environ.get("TRACEPARENT", "")
    return {"traceparent": given} if is_traceparent(given) else {}


def _problem(response: http.client.HTTPResponse, method: str, path: str) -> Exception:
    kind = response.headers.get_content_type()
    problem: Json = {}
    if kind == ERRORS:
        problem = _decoded(response.read(MAX_BODY), method, path)
    code = problem.get("code")
    if not isinstance(code, str):
        return UnexpectedAnswerError(
            f"{method} {path} was answered with {response.status} {response.reason} ({kind}), "
            "which Dray does not say: is the address that of a Dray gateway?"
        )
    detail = problem.get("detail") or response.reason
    wait = response.headers.get("Retry-After", "")
    return RefusedError(
        str(detail),
        status=response.status,
        code=code,
        retry_after=float(wait) if wait.isdecimal() else None,
    )


def _decoded(content: bytes, method: str, path: str) -> Json:
    stranger = UnexpectedAnswerError(
        f"the answer to {method} {path} is no JSON object: is the address that of a Dray gateway?"
    )
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise stranger from exc
    if not isinstance(value, dict):
        raise stranger
    return value
