"""A small HTTP server that answers as a test tells it, in the words of shared.api."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

from pydantic import BaseModel

from shared.api import Problem

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `cut` ends the connection in the middle of a chunked body."""

    body: bytes = b""
    status: int = 200
    content_type: str = JSON
    cut: bool = False
    held: bool = False
    retry_after: int | None = None


@dataclass(slots=True)
class Script:
    """What is answered to what, and what was asked. The last reply to a request is repeated."""

    replies: dict[str, list[Reply | Callable[[], Reply]]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    """As whom, request by request."""

    def on(self, request: str, *replies: Reply | Callable[[], Reply]) -> None:
        """`request` is "METHOD /path?query"."""
        self.replies[request] = list(replies)

    def take(self, request: str) -> Reply:
        queue = self.replies.get(request)
        if not queue:
            return problem(404, "not_found", f"no script for {request}")
        reply = queue.pop(0) if len(queue) > 1 else queue[0]
        return reply() if callable(reply) else reply


def says(model: BaseModel, status: int = 200) -> Reply:
    return Reply(model.model_dump_json().encode(), status)


def problem(status: int, code: str, detail: str) -> Reply:
    body = Problem(title="Problem", status=status, detail=detail, code=code).model_dump_json()
    return Reply(body.encode(), status, "application/problem+json")


def streams(*models: BaseModel, cut: bool = False, held: bool = False) -> Reply:
    """Server-sent events as the gateway writes them, with a comment in between.

    One that is held goes on, without a word, until the client has enough.
    """
    events = [f"id: 1\nevent: pull\ndata: {model.model_dump_json()}\n\n" for model in models]
    return Reply(
        "".join(["retry: 1000\n\n", *events]).encode(), 200, "text/event-stream", cut, held
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        request = f"{self.command} {self.path}"
        self.script.asked.append((request, json.loads(content) if content else None))
        self.script.authorizations.append(self.headers.get("Authorization"))
        reply = self.script.take(request)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        if reply.content_type == "text/event-stream":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with suppress(ConnectionError):  # a client may have enough before we have
                self.wfile.write(b"%x\r\n%s\r\n" % (len(reply.body), reply.body))
                if reply.held:
                    self.wfile.flush()
                    self.connection.settimeout(30)
                    self.rfile.read(1)
                self.wfile.write(b"" if reply.cut else b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(reply.body)))
        if reply.retry_after is not None:
            self.send_header("Retry-After", str(reply.retry_after))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

    def address_string(self) -> str:
        return "test"  # a Unix socket's client has no address

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        return


class _UnixServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def scripted_gateway() -> Iterator[tuple[str, Script]]:
    """The server's URL, and its script."""
    script = Script()
    handler = type("Handler", (_Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, _served(server):
        yield f"http://127.0.0.1:{server.server_port}", script


@contextmanager
def scripted_agent(path: str) -> Iterator[Script]:
    """The same on a Unix socket."""
    script = Script()
    handler = type("Handler", (_Handler,), {"script": script})
    with _UnixServer(path, handler) as server, _served(server):
        yield script


@contextmanager
def _served(server: ThreadingHTTPServer | _UnixServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
