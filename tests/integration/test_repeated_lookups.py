"""What is asked again is answered before any route is looked for, and in no way differently."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from services.gateway.at_once import AtOnce
from services.gateway.feed import FRESH_SECONDS, ChangeFeed
from services.gateway.repeated import RepeatedLookups
from shared.catalog.records import ImageRecord
from shared.http.server import HttpServer
from shared.states import State
from tests.support.catalogs import opened, put, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway
from tests.support.lifecycle import image
from tests.support.munged import Munged

SITE = {"systems": {"cluster": {"image_dir": "/srv/images"}}}
PUBLIC = image("debian")
V1 = f"/api/v1/images/cluster/docker/{quote(PUBLIC.reference, safe='')}"
WIRE = f"/api/lookup/cluster/docker/{quote(PUBLIC.reference, safe='')}/"
USUALLY = ("If-None-Match", '"nothing"')
"""With this header a request is answered in the usual way, and is answered the same."""
OF_EACH = {"x-request-id", "date"}


@dataclass
class Answers:
    """How many requests were answered at once."""

    at_once: int = 0


@dataclass(frozen=True)
class Sent:
    """One answer as it came over the wire."""

    status: str
    headers: dict[str, str] = field(hash=False)
    body: bytes

    @property
    def lasting(self) -> tuple[str, dict[str, str], bytes]:
        """All that does not differ from one answer to the next."""
        kept = {name: value for name, value in self.headers.items() if name not in OF_EACH}
        return self.status, kept, self.body


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    seen, usual = Answers(), AtOnce.answer

    def answer(self: AtOnce, request: web.Request) -> web.StreamResponse | None:
        response = usual(self, request)
        seen.at_once += response is not None
        return response

    monkeypatch.setattr(AtOnce, "answer", answer)
    return seen


@asynccontextmanager
async def serving(directory: Path, **settings: Any) -> AsyncIterator[Running]:
    """A gateway whose catalog has one image."""
    directory.mkdir()
    await change(directory, PUBLIC)
    async with gateway(directory, SITE, **settings) as running:
        yield running


async def change(directory: Path, record: ImageRecord) -> ImageRecord:
    """As another gateway does it."""
    async with opened(f"sqlite://{directory}/catalog.db") as catalog:
        found = await catalog.images.change(record.key, put(record), soon())
        assert found is not None
        return found


@pytest.fixture
async def running(tmp_path: Path, answers: Answers) -> AsyncIterator[Running]:
    async with serving(tmp_path / "data") as started:
        yield started


async def ask(
    running: Running, path: str, *headers: tuple[str, str], begin: str = "GET {} HTTP/1.1"
) -> Sent:
    [sent] = await ask_all(running.url, [(path, headers)], begin)
    return sent


async def ask_all(
    url: str,
    requests: list[tuple[str, tuple[tuple[str, str], ...]]],
    begin: str = "GET {} HTTP/1.1",
) -> list[Sent]:
    """All over one connection, sent together."""
    address = url.removeprefix("http://")
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for path, headers in requests:
        given = {"Host": address, **dict(headers)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"{begin.format(path)}\r\n{lines}\r\n".encode())
    try:
        async with asyncio.timeout(10):
            return [await _read(reader, empty="HEAD" in begin) for _ in requests]
    finally:
        writer.close()
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader, *, empty: bool) -> Sent:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
    }
    assert len(headers) == len(head) - 3, "each header once"
    size = 0 if empty else int(headers.get("content-length", 0))
    return Sent(head[0], headers, await reader.readexactly(size))


@pytest.mark.parametrize("path", [V1, V1.replace("%2F", "/"), WIRE, WIRE[:-1].replace("%3A", ":")])
async def test_the_answer_is_the_usual_one_to_the_byte(
    running: Running, answers: Answers, path: str
) -> None:
    first = await ask(running, path)
    again, usual = await ask(running, path), await ask(running, path, USUALLY)
    assert answers.at_once == 1
    assert first.status == "HTTP/1.1 200 OK"
    assert PUBLIC.reference.split("/")[-1].encode() in first.body
    assert first.lasting == again.lasting == usual.lasting
    assert again.headers.keys() == usual.headers.keys()
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", again.headers["date"])


async def test_each_answer_has_the_id_of_its_request(running: Running, answers: Answers) -> None:
    given = [("x-request-id", value) for value in ("mine-1", "no good", "x" * 65)]
    await ask(running, V1)
    sent = await ask_all(running.url, [(V1, ()), *((V1, (each,)) for each in given)])
    ids = [each.headers["x-request-id"] for each in sent]
    assert answers.at_once == 4
    assert ids[1] == "mine-1"
    assert len(set(ids)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{28}", each) for each in (ids[0], *ids[2:]))


async def test_each_counts_as_a_request_and_as_a_use(running: Running, answers: Answers) -> None:
    async def counted(name: str) -> float:
        async with running.network.get(f"{running.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    of_route = 'route="/api/v1/images/{system}/{type}/{reference}",status="200",via="nobody"'
    requests = f'dray_http_request_seconds_count{{method="GET",{of_route}}}'
    before = await counted(requests), await counted("dray_lookups_total ")
    for _ in range(5):
        await ask(running, V1)
    assert answers.at_once == 4
    assert await counted(requests) - before[0] == 5

    async def used() -> bool:
        items = (await running.ask_locally("/usage")).body["items"]
        return [item["lookups"] for item in items] == [5]

    await eventually(used, within=30)
    assert await counted("dray_lookups_total ") - before[1] == 5


@pytest.mark.parametrize(
    ("begin", "headers", "status"),
    [
        ("HEAD {} HTTP/1.1", (), "HTTP/1.1 200 OK"),
        ("GET {} HTTP/1.0", (), "HTTP/1.0 200 OK"),
        ("POST {} HTTP/1.1", (), "HTTP/1.1 405 Method Not Allowed"),
        ("GET {} HTTP/1.1", (("Connection", "close"),), "HTTP/1.1 200 OK"),
        ("GET {} HTTP/1.1", (("If-None-Match", "*"),), "HTTP/1.1 304 Not Modified"),
        ("GET {} HTTP/1.1", (("Host", "evil.example"),), "HTTP/1.1 421 Misdirected Request"),
        ("GET {}?sharing=maybe HTTP/1.1", (), "HTTP/1.1 400 Bad Request"),
        ("GET {}?sharing=true HTTP/1.1", (), "HTTP/1.1 200 OK"),
    ],
)
async def test_what_is_unusual_goes_the_usual_way(
    running: Running,
    answers: Answers,
    begin: str,
    headers: tuple[tuple[str, str], ...],
    status: str,
) -> None:
    await ask(running, V1)
    assert (await ask(running, V1, *headers, begin=begin)).status == status
    assert answers.at_once == 0


async def test_nobody_is_shown_what_another_gateway_made_private(
    running: Running, answers: Answers, tmp_path: Path
) -> None:
    for path in (V1, WIRE):
        assert (await ask(running, path)).lasting == (await ask(running, path)).lasting
    assert answers.at_once == 2
    data = tmp_path / "data"
    await change(data, PUBLIC.but(private=True, owner=4711))
    for path in (V1, WIRE):
        assert await turned(running, path, "404")
    assert answers.at_once >= 2
    before = answers.at_once
    assert (await running.ask_locally(V1.removeprefix("/api/v1"))).status == 200, "an admin"
    assert (await ask(running, V1)).status == "HTTP/1.1 404 Not Found"
    assert answers.at_once == before, "what is private is looked at in full"


async def turned(running: Running, path: str, status: str) -> bool:
    """Whether the answer comes to have this status, as soon as is promised."""

    async def has() -> bool:
        return status in (await ask(running, path)).status

    await eventually(has, within=FRESH_SECONDS + 4)
    return True


async def test_what_was_pulled_anew_or_has_expired_is_answered_as_it_is(
    running: Running, answers: Answers, tmp_path: Path
) -> None:
    old = await ask(running, V1)
    assert (await ask(running, V1)).lasting == old.lasting
    data = tmp_path / "data"
    newer = await change(data, image("debian", "b"))

    async def newest() -> bool:
        return b"b" * 64 in (await ask(running, V1)).body

    await eventually(newest, within=FRESH_SECONDS + 4)
    before = answers.at_once
    again = await ask(running, V1)
    assert answers.at_once == before + 1
    assert b"b" * 64 in again.body
    assert again.headers["etag"] != old.headers["etag"]
    await change(data, newer.but(state=State.EXPIRED, current=None, image_id=None))
    assert await turned(running, V1, "404")


async def test_an_owners_image_of_the_same_name_is_theirs_alone(
    running: Running, answers: Answers, tmp_path: Path
) -> None:
    await ask(running, V1)
    await change(tmp_path / "data", image("debian", "d", owner=4711))
    own = (await running.ask_locally("/tokens", "POST", {"service": "owner"})).body["token"]

    async def both_known() -> bool:
        before = answers.at_once
        await ask(running, V1)
        return answers.at_once == before

    await eventually(both_known, within=FRESH_SECONDS + 4)
    for headers in ((), (("Authorization", f"Bearer {own}"),)):
        sent = await ask(running, V1, *headers)
        assert b"a" * 64 in sent.body
        assert b"d" * 64 not in sent.body


async def test_tokens_and_the_socket_are_asked_for_each_time(
    tmp_path: Path, answers: Answers
) -> None:
    async with serving(tmp_path / "data", anonymous="none") as running:
        made = await running.ask_locally("/tokens", "POST", {"seconds": 60})
        good = ("Authorization", f"Bearer {made.body['token']}")
        bad = ("Authorization", f"Bearer {made.body['token'][:-2]}xx")
        for _ in range(3):
            assert (await ask(running, V1, good)).status == "HTTP/1.1 200 OK"
            assert (await running.ask_locally(V1.removeprefix("/api/v1"))).status == 200
        known = answers.at_once
        assert known >= 4
        for headers, code in ((), b"not_authenticated"), ((bad,), b"token_invalid"):
            sent = await ask(running, V1, *headers)
            assert sent.status == "HTTP/1.1 401 Unauthorized"
            assert code in sent.body
        assert answers.at_once == known


async def test_a_munge_credential_is_good_once(tmp_path: Path, answers: Answers) -> None:
    with Munged() as munged:
        async with serving(tmp_path / "data", munge_socket=munged.socket) as running:
            await ask(running, V1)
            await ask(running, WIRE)
            for path, name, scheme in (
                (V1, "Authorization", "MUNGE "),
                (WIRE, "authentication", ""),
            ):
                header = (name, f"{scheme}{munged.credential()}")
                assert "200" in (await ask(running, path, header)).status
                refused = await ask(running, path, header)
                assert "200" not in refused.status
            assert answers.at_once == 0


async def test_who_asks_too_often_is_told_so(tmp_path: Path, answers: Answers) -> None:
    limits = {"requests_per_second": 1, "request_burst": 5}
    async with serving(tmp_path / "data", **limits) as running:
        sent = await ask_all(running.url, [(V1, ())] * 7)
        assert [each.status.split()[1] for each in sent] == ["200"] * 5 + ["429"] * 2
        assert answers.at_once == 4
        assert int(sent[-1].headers["retry-after"]) == 1
        assert b"too_many_requests" in sent[-1].body


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """However many paths lead to an image."""
    async with opened(f"sqlite://{tmp_path}/catalog.db") as catalog:
        await catalog.images.change(PUBLIC.key, put(PUBLIC), soon())
        feed = ChangeFeed(catalog)
        await feed.start()
        repeated = RepeatedLookups(feed, most_bytes=20_000)
        entry = feed.directory.get(PUBLIC.key)
        assert entry is not None
        known: list[bool] = []

        async def answer(request: web.Request) -> web.Response:
            known.append(repeated.find(request) is not None)
            response = web.Response(body=b"x" * 1000)
            repeated.keep(request, entry, response)
            return response

        app = web.Application()
        app.add_routes([web.get("/{path:.*}", answer)])
        server = HttpServer(app, "127.0.0.1:0")
        await server.start()
        try:
            url = f"http://{server.address}"
            paths = [f"/{number}" for number in range(50)]
            await ask_all(url, [(path, ()) for path in paths])
            assert 0 < repeated.size <= 20_000
            assert 5 < len(repeated) < 15
            await ask_all(url, [("/49", ()), ("/0", ()), ("/1?x=1", ()), ("/1?x=1", ())])
            assert known[50:] == [True, False, False, False]
        finally:
            await server.stop()
            await feed.stop()
