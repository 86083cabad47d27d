"""Running services: start in order, stop in reverse on SIGTERM or SIGINT, within a deadline."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from shared.bus.connect import EMBEDDED
from shared.config import Settings, load_settings
from shared.deadline import Deadline
from shared.errors import ConfigError, DrayError
from shared.logging import configure_logging, get_logger, name_service
from shared.metrics import tell_version, watch_loop_lag
from shared.tasks import cancel_all
from shared.tracing import serving
from shared.tracing.start import tracing

log = get_logger(__name__)

START_SECONDS = 60.0
STOP_SECONDS = 20.0
GATEWAY = "gateway"
COLLECT_AFTER = (2_000, 10, 100)
"""Two million new objects from one look at all of them to the next; Python's own is 70,000."""


class Service(Protocol):
    """One of the four services, wired and ready to start."""

    name: str

    async def start(self, deadline: Deadline) -> None: ...

    async def stop(self, deadline: Deadline) -> None:
        """Finish or hand back what is under way. Called once, also after a failed start."""


async def run_services(
    services: Sequence[Service], started: Callable[[], None] = lambda: None
) -> None:
    """Run until a signal asks to stop; `started` is called when all of them are up."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tell_version()
    lag = asyncio.create_task(watch_loop_lag(), name="loop-lag")
    begun: list[Service] = []
    try:
        start_by = Deadline.after(START_SECONDS)
        for service in services:
            begun.append(service)
            if not await _started(service, start_by, stopping):
                break
        else:
            spare_collector(rarely=any(each.name == GATEWAY for each in begun))
            started()
            await stopping.wait()
        log.info("stopping")
    finally:
        stop_by = Deadline.after(STOP_SECONDS)
        for service in reversed(begun):
            await _stop(service, stop_by)
        await cancel_all(lag)


def spare_collector(*, rarely: bool) -> None:
    """What is there once all has started stays: looking through it stops the loop for 70 ms.

    `rarely`: what comes later is looked through as a whole only now and then. Ten thousand nodes
    that speak at once to a gateway are very many new objects, of which next to none is part of a
    cycle; the cycles that a failed pull leaves hold its buffers, and are not to wait.
    """
    gc.collect()
    gc.freeze()
    if rarely:
        gc.set_threshold(*COLLECT_AFTER)


async def _started(service: Service, deadline: Deadline, stopping: asyncio.Event) -> bool:
    """Start one service; False if the signal to stop came before it was up."""
    # A task of its own: the service's name stays in its own log context.
    starting = asyncio.create_task(_start(service, deadline), name=f"start-{service.name}")
    asked = asyncio.create_task(_wait(stopping), name="stop-asked")
    try:
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
        return not stopping.is_set()
    finally:
        await cancel_all(starting, asked)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _start(service: Service, deadline: Deadline) -> None:
    name_service(service.name)
    serving(service.name)
    await service.start(deadline)
    log.info("started")


async def _stop(service: Service, deadline: Deadline) -> None:
    try:
        await service.stop(deadline)
    except DrayError as exc:
        log.warning("stop_incomplete", stopped=service.name, code=exc.code, error=exc.message)
    except Exception:  # the others still have to be stopped
        log.exception("stop_incomplete", stopped=service.name)


def main(name: str, build: Callable[[Settings], Service]) -> None:
    """The body of `python -m services.<name>`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=f"Run Dray's {name} service.",
        epilog="Every setting can be overridden from the environment, e.g. DRAY_BUS__URL.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML or TOML settings (or set DRAY_CONFIG)"
    )
    arguments = parser.parse_args()
    # Jobs of any user read what we place, whatever umask we were started with.
    os.umask(0o022)
    try:
        settings = load_settings(arguments.config)
        if settings.bus.url.get_secret_value() == EMBEDDED:
            raise ConfigError(
                "bus.url: the embedded bus ends with its process, and this is one service of "
                "several; name a RabbitMQ (amqp://…), or run all of them with `dray up`"
            )
        configure_logging(settings.log)
        with contextlib.suppress(KeyboardInterrupt), tracing(settings.tracing):
            asyncio.run(run_services([build(settings)]))
    except DrayError as exc:
        sys.exit(f"{name}: {exc.message}")
