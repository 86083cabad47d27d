"""Errors."""

from shared.models import Tolerant


class Problem(Tolerant):
    """RFC 9457 problem details. `code` is ours and stable; `detail` says what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
