"""The API's description is made of its routes: none is missing, and it can be read without help."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from services.gateway.app import build
from shared.bus.connect import connect_bus
from shared.config import Settings
from shared.http.operation import is_internal, operation_of
from tests.support.gateways import API, Running, gateway

PAGES = ("/api/v1/docs", "/web/js/docs.js", "/web/css/docs.css", "/web/css/base.css")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(tmp_path / "data") as started:
        yield started


async def test_every_route_is_declared_or_internal(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path})
    app = build(settings, connect_bus(settings, "test")).http.app
    of_v1 = [route for route in app.router.routes() if _path(route).startswith(f"{API}/")]
    silent = [
        f"{route.method} {_path(route)}"
        for route in of_v1
        if operation_of(route.handler) is None and not is_internal(route.handler)
    ]
    assert len(of_v1) > 20
    assert silent == []
    undocumented = [route.handler.__name__ for route in of_v1 if not route.handler.__doc__]
    assert undocumented == []


def _path(route: web.AbstractRoute) -> str:
    return "" if route.resource is None else route.resource.canonical


async def test_the_description_is_whole(running: Running) -> None:
    description = (await running.ask("/openapi.json")).body
    assert description["openapi"] == "3.1.0"
    schemas = description["components"]["schemas"]
    missing = {
        ref
        for ref in _refs(description)
        if not ref.startswith("#/components/schemas/") or ref.rpartition("/")[2] not in schemas
    }
    assert missing == set()
    ids = []
    for path, methods in description["paths"].items():
        assert path.startswith(f"{API}/")
        for operation in methods.values():
            ids.append(operation["operationId"])
            assert operation["summary"], path
            parameters = operation.get("parameters", ())
            named = {each["name"] for each in parameters if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
            assert any(status.startswith("2") for status in operation["responses"]), path
    assert len(ids) == len(set(ids)), "each operation has a name of its own"


async def test_an_error_is_described_with_its_codes(running: Running) -> None:
    description = (await running.ask("/openapi.json")).body
    lookup = description["paths"][f"{API}/images/{{system}}/{{type}}/{{reference}}"]["get"]
    problem = lookup["responses"]["404"]["content"]["application/problem+json"]["schema"]
    assert {"not_found", "unknown_system"} <= set(problem["properties"]["code"]["enum"])
    assert "304" in lookup["responses"]
    assert "tickets" not in str(description["paths"].keys()), "what is internal is not told"


async def test_the_page_for_people_needs_nothing_from_elsewhere(running: Running) -> None:
    for path in PAGES:
        async with running.network.get(f"{running.url}{path}") as response:
            assert response.status == 200
            text = await response.text()
            assert "//" not in re.sub(r"^\s*//.*$|/api/v1|/web/", "", text, flags=re.MULTILINE), (
                path
            )
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def _refs(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield content["$ref"]
        for value in content.values():
            yield from _refs(value)
    elif isinstance(content, list):
        for value in content:
            yield from _refs(value)


async def test_whoever_has_it_is_told_so(running: Running) -> None:
    for path in ("/images", "/queue", "/openapi.json"):
        said = await running.ask(path)
        assert said.headers["Cache-Control"] == "private, no-cache"
        etag = said.headers["ETag"]
        assert etag.startswith('W/"')
        for given in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
            assert (await running.ask(path, if_none_match=given)).status == 304
        assert (await running.ask(path, if_none_match='W/"other"')).status == 200


async def test_what_is_not_there_is_a_problem_too(running: Running) -> None:
    nothing = await running.ask("/nothing")
    assert (nothing.status, nothing.code) == (404, "not_found")
    assert nothing.headers["Content-Type"] == "application/problem+json"
    wrong = await running.ask("/queue", "DELETE")
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    assert set(wrong.headers["Allow"].split(",")) == {"GET", "HEAD"}


@pytest.mark.parametrize("cursor", ["1", "0000", "1" + "A" * 100, "2" * 2000])
@pytest.mark.parametrize("path", ["/images", "/queue"])
async def test_a_cursor_that_nobody_made_is_refused(
    running: Running, path: str, cursor: str
) -> None:
    said = await running.ask(f"{path}?after={cursor}")
    assert (said.status, said.code) == (400, "invalid_cursor")


@pytest.mark.parametrize("path", ["/images", "/queue", "/usage"])
async def test_an_empty_cursor_is_the_first_page(running: Running, path: str) -> None:
    assert (await running.ask(f"{path}?after=")).status == 200


async def test_each_operation_says_what_a_token_must_be_good_for(running: Running) -> None:
    paths = (await running.ask("/openapi.json")).body["paths"]
    image = f"{API}/images/{{system}}/{{type}}/{{reference}}"
    assert paths[f"{API}/images"]["get"]["x-scope"] == "read"
    assert paths[f"{API}/pulls"]["post"]["x-scope"] == "pull"
    assert paths[image]["delete"]["x-scope"] == "pull"
    assert paths[f"{API}/admin/dead-letters"]["get"]["x-scope"] == "admin"
    async with running.network.get(f"{running.url}/web/js/docs.js") as response:
        assert 'operation["x-scope"]' in await response.text()
