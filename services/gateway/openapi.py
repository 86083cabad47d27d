"""OpenAPI 3.1, made from the routes and from what their handlers declare."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from types import UnionType
from typing import Any, Final, Literal, get_args

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.gateway.auth.identity import NotAllowedError, NotAuthenticatedError
from services.gateway.limits import TooManyRequestsError, TooManyStreamsError
from shared.api import API, Problem
from shared.api.account import ScopeName
from shared.errors import (
    CatalogUnavailableError,
    DeadlineExceededError,
    DrayError,
    InvalidInputError,
)
from shared.http.answers import BODY_TOO_LARGE, INTERNAL_ERROR, STREAM_ROUTE
from shared.http.guard import ForeignOriginError, NotJsonError, UnknownHostError
from shared.http.operation import Events, Given, Operation, operation_of

REFS: Final = "#/components/schemas/{model}"
ALWAYS: Final = (
    NotAuthenticatedError,
    NotAllowedError,
    TooManyRequestsError,
    UnknownHostError,
    CatalogUnavailableError,
    DeadlineExceededError,
)
_OURS: Final = ("services.gateway.", "shared.")
_SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {
    "nothing": [{}, {"munge": []}, {"bearer": []}],
    "identity": [{"munge": []}, {"bearer": []}],
    "admin": [{"munge": []}, {"bearer": []}],
}
_SCHEMES: Final = {
    "munge": {
        "type": "http",
        "scheme": "munge",
        "description": "`Authorization: MUNGE CREDENTIAL`, with what `munge` made for this request "
        "alone. On the gateway's own machine its UNIX socket needs none.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer TOKEN`, with what `dray token` printed.",
    },
}
_ABOUT: Final = """\
Container images for supercomputers: asked for once, placed on a system's file system, mounted on
its nodes.

Every error is a problem (RFC 9457) with a stable `code` to act on and a `detail` that says what to
do. Who asks without credentials is the public, and sees public images only; what one may not see
does not exist, in every answer. Each answer has an `X-Request-Id`, which the gateway's log has too.

Lists come in pages: give `next` back as `after`, as it is. Answers with an `ETag` can be asked for
again with `If-None-Match`. Streams are server-sent events; a new connection with `Last-Event-ID`
goes on where that is possible.\
"""


def describe(routes: Iterable[web.AbstractRoute], version: str) -> dict[str, Any]:
    """The description of all routes of REST v1 that are declared: all but internal ones."""
    declared: list[tuple[str, web.AbstractRoute, Operation]] = []
    for route in routes:
        path = "" if route.resource is None else route.resource.canonical
        found = operation_of(route.handler)
        if path.startswith(f"{API}/") and route.method != "HEAD" and found is not None:
            declared.append((path, route, found))
    schemas = _Schemas([operation for _, _, operation in declared])
    paths: dict[str, dict[str, Any]] = {}
    for path, route, found in sorted(declared, key=lambda each: (each[0], each[1].method)):
        paths.setdefault(path, {})[route.method.lower()] = _operation(path, route, found, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dray REST v1", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas.all, "securitySchemes": _SCHEMES},
    }


_Wanted = tuple[type[BaseModel], Literal["validation", "serialization"]]


class _Schemas:
    """The models' schemas by model, as others refer to them."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        wanted: set[_Wanted] = {(Problem, "serialization")}
        for found in operations:
            if found.body is not None:
                wanted.add((found.body, "validation"))
            for what in found.gives.values():
                wanted |= {(model, "serialization") for model in _models(what)}
        mapped, top = models_json_schema(sorted(wanted, key=str), ref_template=REFS)
        self._mapped = {key: dict(schema) for key, schema in mapped.items()}
        self.all: dict[str, Any] = dict(sorted(top.get("$defs", {}).items()))

    def taken(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._mapped[model, "validation"]

    def given(self, model: type[BaseModel]) -> dict[str, Any]:
        return self._mapped[model, "serialization"]


def _operation(
    path: str, route: web.AbstractRoute, found: Operation, schemas: _Schemas
) -> dict[str, Any]:
    handler = route.handler
    summary, _, more = cleandoc(handler.__doc__ or "").partition("\n\n")
    described: dict[str, Any] = {
        "operationId": handler.__name__,
        "tags": [path.removeprefix(f"{API}/").split("/")[0]],
        "summary": " ".join(summary.split()).rstrip("."),
        "security": _SECURITY[found.needs],
        "x-scope": _scope(route, found),
        "responses": _responses(route, found, schemas),
    }
    if more:
        described["description"] = more
    if parameters := _parameters(path, found):
        described["parameters"] = parameters
    if found.body is not None:
        content = {"application/json": {"schema": schemas.taken(found.body)}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _scope(route: web.AbstractRoute, found: Operation) -> ScopeName:
    """What a token must be good for."""
    if found.needs == "admin":
        return "admin"
    return "read" if route.method in {"GET", "HEAD"} else "pull"


def _parameters(path: str, found: Operation) -> list[dict[str, Any]]:
    in_path = _properties(found.path)
    parameters = [
        {"name": name, "in": "path", "required": True, **in_path.get(name, _TEXT)}
        for name in re.findall(r"{(\w+)", path)
    ]
    required = set(found.query.model_json_schema().get("required", ())) if found.query else set()
    for name, property_ in _properties(found.query).items():
        parameters.append({"name": name, "in": "query", "required": name in required, **property_})
    if found.etag:
        parameters.append(_header("If-None-Match", "The ETag of what you have."))
    if any(isinstance(what, Events) for what in found.gives.values()):
        parameters.append(_header("Last-Event-ID", "The id of the last event that you have."))
    return parameters


_TEXT: Final[dict[str, Any]] = {"schema": {"type": "string"}}


def _header(name: str, about: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": about, **_TEXT}


def _properties(model: type[BaseModel] | None) -> dict[str, dict[str, Any]]:
    """Of a path or a query: each field's schema, with nothing to refer to."""
    if model is None:
        return {}
    schema = model.model_json_schema()
    properties = _inlined(schema["properties"], schema.get("$defs", {}))
    return {name: {"schema": property_} for name, property_ in properties.items()}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if ref := schema.get("$ref"):
        return _inlined(definitions[ref.rpartition("/")[2]], definitions)
    parts = {key: _inlined(value, definitions) for key, value in schema.items()}
    # An absent parameter is no null: there is no way to write one.
    options = [each for each in parts.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        del parts["anyOf"]
        parts |= options[0]
        if parts.get("default", 0) is None:
            del parts["default"]
    return parts


def _responses(
    route: web.AbstractRoute, found: Operation, schemas: _Schemas
) -> dict[str, dict[str, Any]]:
    responses: dict[str, dict[str, Any]] = {}
    for status, given in found.gives.items():
        responses[str(status)] = _good(status, given, found, schemas)
    if found.etag:
        responses["304"] = {"description": "You have it already.", "headers": _headers(found)}
    for status, codes in sorted(_problems(route, found).items()):
        named = ", ".join(f"`{code}`" for code in sorted(codes))
        schema = {
            "allOf": [schemas.given(Problem)],
            "properties": {"code": {"enum": sorted(codes)}},
        }
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}: {named}",
            "content": {"application/problem+json": {"schema": schema}},
        }
    return responses


def _good(status: int, given: Given, found: Operation, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(found),
    }
    if isinstance(given, Events):
        # What no schema of one value can say: a stream of events, each with data of its kind.
        response["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        response["x-events"] = {
            kind: schemas.given(model) for kind, model in sorted(given.kinds.items())
        }
    elif isinstance(given, str):
        schema: dict[str, Any] = {} if given == "application/json" else {"type": "string"}
        response["content"] = {given: {"schema": schema}}
    elif given is not None:
        options = [schemas.given(model) for model in _models(given)]
        schema = options[0] if len(options) == 1 else {"anyOf": options}
        response["content"] = {"application/json": {"schema": schema}}
    return response


def _headers(found: Operation) -> dict[str, Any]:
    about = {"X-Request-Id": "Of this request, in the gateway's log too.", **found.headers}
    if found.etag:
        about["ETag"] = "Weak; for If-None-Match."
    return {name: {"description": text, **_TEXT} for name, text in about.items()}


def _problems(route: web.AbstractRoute, found: Operation) -> dict[int, set[str]]:
    kinds: set[type[DrayError]] = {*ALWAYS, *found.problems}
    if found.query or found.path or found.body:
        kinds.add(InvalidInputError)
    if route.method not in {"GET", "HEAD"}:
        kinds |= {ForeignOriginError, NotJsonError}
    if (route.name or "").startswith(STREAM_ROUTE):
        kinds.add(TooManyStreamsError)
    codes: dict[int, set[str]] = {500: {INTERNAL_ERROR}}
    for kind in kinds:
        for one in _family(kind):
            codes.setdefault(one.status, set()).add(one.code)
    if route.method not in {"GET", "HEAD"}:
        codes.setdefault(413, set()).add(BODY_TOO_LARGE)
    return codes


def _family(kind: type[DrayError]) -> Iterable[type[DrayError]]:
    """A problem and what derives from it here, whatever else runs in this process."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith(_OURS):
            yield from _family(child)


def _models(given: Given) -> tuple[type[BaseModel], ...]:
    if isinstance(given, Events):
        return tuple(given.kinds.values())
    if isinstance(given, UnionType):
        return get_args(given)
    return (given,) if isinstance(given, type) else ()
