"""How every answer is shaped: models as JSON, errors as problem details (RFC 9457)."""

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, TypeGuard, TypeVar

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from shared.api import Problem
from shared.errors import DrayError, InvalidInputError
from shared.logging import get_logger

log = get_logger(__name__)

STREAM_ROUTE = "stream"
"""Begins the names of routes whose answer has no end to wait for; they bound themselves."""

INTERNAL_ERROR: Final = "internal_error"
BODY_TOO_LARGE: Final = "body_too_large"

_ROUTES: Final = 256

M = TypeVar("M", bound=BaseModel)


def answer(
    model: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=model.model_dump_json().encode(),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def read_body(request: web.Request, model: type[M]) -> M:
    """The request's body as `model`; what is wrong with it is named field by field."""
    body = await request.read()
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as exc:
        raise invalid_input(exc) from exc


def read_query(request: web.Request, model: type[M]) -> M:
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as exc:
        raise invalid_input(exc) from exc


@lru_cache(_ROUTES)
def is_stream(route: web.AbstractRoute) -> bool:
    return (route.name or "").startswith(STREAM_ROUTE)


def invalid_input(exc: ValidationError) -> InvalidInputError:
    """What is wrong with a request, field by field."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
        for problem in exc.errors(include_url=False, include_input=False)
    ]
    return InvalidInputError("; ".join(problems[:10]))


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem that says what to do; redirects are none."""
    try:
        return await handler(request)
    except Exception as exc:
        if is_redirect(exc):
            raise
        return problem_of(request, exc)


def is_redirect(exc: Exception) -> TypeGuard[web.HTTPException]:
    return isinstance(exc, web.HTTPException) and exc.status < HTTPStatus.BAD_REQUEST


def problem_of(request: web.Request, exc: Exception) -> web.Response:
    """What a client is told of an error; what is the service's fault is logged as well."""
    if isinstance(exc, DrayError):
        if exc.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("request_failed", path=request.path, code=exc.code, error=exc.message)
        return _problem(request, exc.status, exc.code, exc.message, exc.headers)
    if isinstance(exc, web.HTTPException):
        code, advice = _code_of(exc.status), _advice(request, exc)
        return _problem(request, exc.status, code, advice, _kept_headers(exc))
    log.error("request_failed", path=request.path, exc_info=exc)
    message = "an error of ours; the service's log tells more under this path and time"
    return _problem(request, 500, INTERNAL_ERROR, message)


def _problem(
    request: web.Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> web.Response:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        # What a client sent may be no text: Python keeps such bytes, which JSON cannot tell.
        detail=detail.encode("utf-8", "replace").decode(),
        code=code,
        instance=request.path,
    )
    return web.Response(
        body=problem.model_dump_json().encode(),
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )


def _code_of(status: int) -> str:
    # The phrase of 413 is another one in newer Pythons.
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return BODY_TOO_LARGE
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


def _kept_headers(exc: web.HTTPException) -> Mapping[str, str]:
    """What belongs to the status, such as the methods that are allowed."""
    return {name: exc.headers[name] for name in (hdrs.ALLOW, hdrs.LOCATION) if name in exc.headers}


def _advice(request: web.Request, exc: web.HTTPException) -> str:
    if isinstance(exc, web.HTTPNotFound):
        return f"there is nothing at {request.path}"
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return f"{request.method} is not allowed here; try {', '.join(sorted(exc.allowed_methods))}"
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return "the body is larger than this service takes"
    return exc.reason
