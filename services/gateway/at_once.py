"""Lookups that are answered before any route is looked for: nearly all, and nothing waits in them.

The same is asked of each request as the front asks. Whatever cannot be told at once, or speaks
against a request, is left to the usual way, which says it.
"""

import time

from aiohttp import web

from services.gateway.front import Front
from services.gateway.metrics import REQUESTS
from services.gateway.repeated import RepeatedLookups
from services.gateway.usage.service import Usage
from shared.http.request_ids import id_of


class AtOnce:
    """Stands before the application."""

    def __init__(self, front: Front, repeated: RepeatedLookups, usage: Usage) -> None:
        self._front = front
        self._repeated = repeated
        self._usage = usage

    def answer(self, request: web.Request) -> web.StreamResponse | None:
        """None: nothing has been done, and the request goes the usual way."""
        began = time.perf_counter()
        known = self._repeated.find(request)
        if known is None:
            return None
        principal = self._front.let_in_at_once(request)
        if principal is None:
            return None
        self._usage.note("lookups", principal, known.entry)
        response = known.answer.sent_as(id_of(request))
        route, method, status, _ = known.kind
        REQUESTS.note((route, method, status, principal.via), time.perf_counter() - began)
        return response
