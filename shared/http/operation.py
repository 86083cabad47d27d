"""What a handler takes and gives, declared where it is written: the API is described from it.

    @operation(body=PullRequest, gives={200: PullView, 202: PullView}, problems=(ConflictError,))
    async def start_pull(self, request: web.Request) -> web.Response:
        \"\"\"Ask for an image.

        What the description says in more than one line follows here.
        \"\"\"

Problems that any request may meet (who are you, too many, no database, …) need not be named, nor
do those of a query, a path or a body that cannot be read. A problem stands for its subclasses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel

from shared.errors import DrayError

H = TypeVar("H", bound=Callable[..., Any])

Needs = Literal["nothing", "identity", "admin"]
"""Whom an operation serves: everybody whom the site lets in, who says who it is, operators."""

_ATTRIBUTE: Final = "operation"
_INTERNAL: Final = object()


@dataclass(frozen=True, slots=True)
class Events:
    """An answer without end: server-sent events, each kind with the model of its data."""

    kinds: Mapping[str, type[BaseModel]]


Given = type[BaseModel] | UnionType | Events | str | None
"""A model, or one of several, as JSON, events, text of a media type, or no body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    gives: Mapping[int, Given]
    query: type[BaseModel] | None = None
    path: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    problems: tuple[type[DrayError], ...] = ()
    needs: Needs = "nothing"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of good answers, with what they mean."""
    etag: bool = False
    """The answer has an ETag, and If-None-Match is heard."""


def operation(
    *,
    gives: Mapping[int, Given],
    query: type[BaseModel] | None = None,
    path: type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    problems: tuple[type[DrayError], ...] = (),
    needs: Needs = "nothing",
    headers: Mapping[str, str] | None = None,
    etag: bool = False,
) -> Callable[[H], H]:
    """Declare a handler; its docstring is what readers see."""
    declared = Operation(gives, query, path, body, problems, needs, headers or {}, etag)

    def decorate(handler: H) -> H:
        setattr(handler, _ATTRIBUTE, declared)
        return handler

    return decorate


def internal(handler: H) -> H:
    """Leave a handler out of the description: it is for Dray itself."""
    setattr(handler, _ATTRIBUTE, _INTERNAL)
    return handler


def is_internal(handler: Callable[..., Any]) -> bool:
    return getattr(handler, _ATTRIBUTE, None) is _INTERNAL


def operation_of(handler: Callable[..., Any]) -> Operation | None:
    """What was declared; None for a handler that is no part of the API's description."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None
