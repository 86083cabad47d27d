"""Dray itself: as `dray up`, as four services on real servers, and as the command alone.

A pull is measured from its POST until READY is answered: events, catalog, weaving, fsync and
verification are in it. Services run already, as they do on a site; starting them is not counted.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from bench.convert.contenders import Job, Peer, Session, Source, run
from bench.convert.measure import Measured, RunFailedError, measuring_services
from tests.support.mongo import INSTALLED as MONGOD
from tests.support.mongo import Mongod
from tests.support.ports import free_port
from tests.support.rabbitmq import SERVER as RABBITMQ
from tests.support.rabbitmq import RabbitNode

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DRAY: Final = Path(sys.executable).with_name("dray")
SERVICES: Final = ("gateway", "converter", "distributor")
START_SECONDS: Final = 60.0
PULL_SECONDS: Final = 1800.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05


class DrayUp:
    """One process on one machine."""

    name = "dray"
    about = "dray up: POST to READY, with events, catalog, fsync and verification"

    def missing(self) -> str | None:
        return None

    @contextmanager
    def session(self, source: Source, directory: Path) -> Iterator[Session]:
        site = _Site(source, directory, {})
        try:
            site.start("dray", [DRAY, "up", "--config", site.settings])
            yield site
        finally:
            site.stop()


class DrayServices:
    """A process for each service, as on a real site."""

    name = "dray-services"
    about = "gateway, converter, distributor, RabbitMQ, MongoDB: six processes, all counted"

    def missing(self) -> str | None:
        if not RABBITMQ.exists():
            return "needs the Debian package rabbitmq-server"
        if "DRAY_TEST_MONGOD" not in os.environ and not MONGOD.exists():
            return "needs mongod: `make test` fetches one, or name it in DRAY_TEST_MONGOD"
        return None

    @contextmanager
    def session(self, source: Source, directory: Path) -> Iterator[Session]:
        directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            broker = RabbitNode(directory / "rabbitmq")
            stack.callback(broker.discard)
            database = Mongod(directory / "mongodb")
            stack.callback(database.kill)
            broker.start()
            database.start()
            addresses = {"bus": {"url": broker.url}, "catalog": {"url": database.url()}}
            site = _Site(source, directory, addresses, [broker.pid, database.pid])
            stack.callback(site.stop)
            for name in SERVICES:
                site.start(
                    name, [sys.executable, "-m", f"services.{name}", "--config", site.settings]
                )
            yield site


class DrayConvert(Peer):
    """The command alone, with its cache of packs."""

    name = "dray-convert"
    about = "dray convert: no services, start of the interpreter included"
    programs = ()

    def missing(self) -> str | None:
        return None if _has_convert() else "this version has no `dray convert`"

    def convert(self, job: Job) -> None:
        reference = f"docker:{job.source.reference(job.tag)}"
        run(DRAY, "convert", reference, job.image, "--cache", job.storage / "cache")


@cache
def _has_convert() -> bool:
    asked = subprocess.run([DRAY, "convert", "--help"], capture_output=True, check=False)
    return asked.returncode == 0


class _Site:
    """Services over one settings file."""

    def __init__(
        self,
        source: Source,
        directory: Path,
        addresses: Mapping[str, Any],
        helpers: Sequence[int] = (),
    ) -> None:
        self.settings = directory / "dray.json"
        self._source = source
        self._directory = directory
        self._helpers = helpers
        self._ports = {name: free_port() for name in (*SERVICES, "agent")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        listen = {name: {"listen": f"127.0.0.1:{port}"} for name, port in self._ports.items()}
        content: dict[str, Any] = {
            "data_dir": str(directory / "data"),
            "systems": {"bench": {"image_dir": str(directory / "images")}},
            "log": {"format": "json"},
            **listen,
            **addresses,
        }
        content["agent"] |= {"system": "bench", "node": "node1"}
        self.settings.write_text(json.dumps(content))  # JSON is YAML, too

    def start(self, service: str, command: Sequence[str | Path]) -> None:
        """Start one process, and wait until the service is ready."""
        log = self._log(service)
        with log.open("wb") as out:
            process = self._processes[service] = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={"PATH": os.defpath, "HOME": str(self._directory)},
            )
        until = time.monotonic() + START_SECONDS
        while not self._ready(service):
            if process.poll() is not None or time.monotonic() > until:
                raise RunFailedError(f"{service} did not start:\n{_tail(log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def convert(self, tag: str) -> Measured:
        pids = [*(process.pid for process in self._processes.values()), *self._helpers]
        registry = self._source.registry.pid
        view: dict[str, Any] = {}
        with measuring_services(
            pids, self._directory, registry, lambda: int(view["image"]["size"])
        ) as results:
            view = self._pull(self._source.reference(tag))
        return results[0]

    def _pull(self, reference: str) -> dict[str, Any]:
        view = self._ask("POST", "/api/v1/pulls", {"reference": reference})
        until = time.monotonic() + PULL_SECONDS
        while view["state"] != "READY":
            if view["state"] == "FAILURE" or time.monotonic() > until:
                logs = "\n".join(_tail(self._log(name)) for name in self._processes)
                raise RunFailedError(f"{reference} is {view['state']}: {view['failure']}\n{logs}")
            time.sleep(POLL_SECONDS)
            view = self._ask("GET", f"/api/v1/pulls/{view['id']}")
        return view

    def _ready(self, service: str) -> bool:
        port = self._ports["gateway" if service == "dray" else service]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["gateway"], timeout=60)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            content: dict[str, Any] = json.loads(answer.read())
            if answer.status >= 400:
                raise RunFailedError(f"{method} {path}: {content}")
            return content
        finally:
            connection.close()

    def _log(self, service: str) -> Path:
        return self._directory / f"{service}.log"


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
