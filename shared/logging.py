"""Structured logs. One `pull` (or `job`) field follows a piece of work through every service."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from shared import tracing
from shared.events import Event
from shared.settings.site import LogSettings

Logger = structlog.typing.FilteringBoundLogger

# Without the frames' local variables: they hold what must never be in a log.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure_logging(settings: LogSettings) -> None:
    """Send our own and every library's log lines to stderr, in one shape."""
    to_people = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared_steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_trace,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Never what variables hold: some hold passwords.
                exception_formatter=structlog.dev.RichTracebackFormatter(show_locals=False),
            )
        ]
        if to_people
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared_steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # Every request of every probe is no news.
    for noisy in ("aiohttp.access", "pymongo"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_without_what_was_sent)
    # They report each lost connection several times, with tracebacks; our adapter does it once.
    for noisier in ("aio_pika", "aiormq"):
        logging.getLogger(noisier).setLevel(logging.CRITICAL)


def _without_what_was_sent(record: logging.LogRecord) -> bool:
    """A request that is no HTTP is not our error, and its text may hold a credential."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__module__ == "aiohttp.http_exceptions":
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg, record.args = f"malformed_request: {type(error).__name__}", ()
    return True


def _with_trace(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """So that one finds the trace of a line, and the lines of a trace."""
    traceparent = tracing.current()
    if traceparent is not None:
        line["trace"] = tracing.trace_id(traceparent)
    return line


def name_service(name: str) -> None:
    """Name the service in every log line of this task and of the tasks that it starts."""
    structlog.contextvars.bind_contextvars(service=name)


def get_logger(name: str) -> Logger:
    logger: Logger = structlog.get_logger(name)
    return logger


@contextmanager
def following(event: Event) -> Iterator[None]:
    """Bind the event's pull or job to every log line of the body."""
    field = "job" if hasattr(event, "job_id") else "pull"
    with structlog.contextvars.bound_contextvars(
        **{field: event.correlation_id}, event_type=event.type
    ):
        yield
