"""`python -m bench.gateway`: a gateway with a full catalog, beside a bare aiohttp handler.

Each is one process on this machine, and so is the load. Rounds alternate, so that whatever else
the machine does befalls both. The bare handler is asked the same, returns the bytes that the
gateway returns, and does nothing else.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from pydantic import BaseModel

from bench.convert.processes import anonymous_memory, usage_of
from bench.gateway.fill import SYSTEM, fill, reference
from bench.gateway.load import Asked
from services.gateway.auth.compose import site_secret
from services.gateway.auth.identity import Scope
from services.gateway.auth.tokens import Claims, Tokens
from shared.config import load_settings

START_SECONDS: Final = 120
CHECKOUT: Final = Path(__file__).resolve().parents[2]
SETTLE_SECONDS: Final = 13
LOOKED_UP: Final = 1000
"""Different images; more than any cache of the machine's, less than the catalog has."""
TOKEN_SECONDS: Final = 3600
TOKEN_UID: Final = 4242
OTHERS: Final = (
    ("list, first page of 100", f"/api/v1/images?system={SYSTEM}"),
    ("list, page of 1000", f"/api/v1/images?system={SYSTEM}&limit=1000"),
    ("queue, 200 pulls", f"/api/v1/queue?system={SYSTEM}"),
)


class Loaded(BaseModel):
    """What one run of the load saw, in seconds."""

    requests: int
    rate: float
    p50: float
    p99: float


class Case(NamedTuple):
    """A kind of lookup."""

    name: str
    asked: Asked


class Server(NamedTuple):
    """One of the two that are compared."""

    port: int
    pid: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--usage", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, help="seconds to wait")
    parser.add_argument("--mongo", metavar="URL", help="of an empty database of a replica set")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="dray-bench-") as work, ExitStack() as stack:
        _compare(arguments, Path(work), stack)
    return 0


def _compare(arguments: argparse.Namespace, work: Path, stack: ExitStack) -> None:
    url = arguments.mongo or f"sqlite://{work}/catalog.db"
    _say(f"filling: {arguments.images} images, {arguments.usage} records of usage")
    asyncio.run(fill(url, arguments.images, arguments.usage))
    gateway, bare = _free_port(), _free_port()
    settings = _settings(work, url, gateway)
    process = stack.enter_context(_serving(["gateway", str(settings)]))
    began = time.monotonic()
    _wait(f"http://127.0.0.1:{gateway}/readyz")
    _say(f"the gateway is ready after {time.monotonic() - began:.1f} s")
    _say(f"memory at the start: {_memory(process)}")
    numbers = range(0, arguments.images, max(1, arguments.images // LOOKED_UP))
    cases = _cases([quote(reference(number), safe="") for number in numbers], settings)
    _settle(arguments, work, gateway, cases)
    for case in cases:
        body = _answer(gateway, case.asked)
        (work / "body").write_bytes(body)
        with _serving(["bare", str(bare), str(work / "body")]) as plain:
            _wait(f"http://127.0.0.1:{bare}/")
            _say(f"{case.name} ({len(body)} bytes)")
            asked = _written(work, case.asked)
            _lookups(arguments, asked, Server(gateway, process.pid), Server(bare, plain.pid))
    _say(f"memory after lookups: {_memory(process)}")
    for name, path in OTHERS:
        seen = _load(gateway, 1, arguments.seconds, _written(work, Asked(paths=[path])))
        _say(f"{name}: p50 {seen.p50 * 1e3:.1f} ms, p99 {seen.p99 * 1e3:.1f} ms, one at a time")
    _say(f"memory at the end: {_memory(process)}")
    _say(f"event loop: {_lag(gateway)}")


def _cases(references: list[str], settings: Path) -> list[Case]:
    """Who asks how. A tag that nothing has makes the gateway look at the request in full."""
    ours = [f"/api/v1/images/{SYSTEM}/docker/{each}" for each in references]
    wire = [f"/api/lookup/{SYSTEM}/docker/{each}/" for each in references]
    token = {"Authorization": f"Bearer {_token(settings)}"}
    other = {"If-None-Match": '"nothing"'}
    return [
        Case("v1, the public", Asked(paths=ours)),
        Case("Shifter's wire, the public", Asked(paths=wire)),
        Case("v1, a user's token", Asked(paths=ours, headers=token)),
        Case("v1, the public, as if it was not asked before", Asked(paths=ours, headers=other)),
    ]


def _token(settings: Path) -> str:
    """Of a user who may read and no more."""
    now = time.time()
    name, scopes = str(TOKEN_UID), frozenset({Scope.READ})
    claims = Claims(
        id="bench",
        name=name,
        scopes=scopes,
        issued=now,
        expires=now + TOKEN_SECONDS,
        uid=TOKEN_UID,
    )
    return Tokens(site_secret(load_settings(settings))).sign(claims)


def _answer(port: int, asked: Asked) -> bytes:
    url = f"http://127.0.0.1:{port}{asked.paths[0]}"
    with urlopen(Request(url, headers=asked.headers)) as answer:
        body: bytes = answer.read()
    return body


def _written(work: Path, asked: Asked) -> Path:
    path = work / "asked.json"
    path.write_text(asked.model_dump_json())
    return path


def _settle(arguments: argparse.Namespace, work: Path, gateway: int, cases: list[Case]) -> None:
    """Once an hour, each image that is used has this written down, some seconds later."""
    for case in cases:
        _load(gateway, arguments.connections, 1.0, _written(work, case.asked))
    time.sleep(arguments.settle)


def _lookups(arguments: argparse.Namespace, asked: Path, gateway: Server, bare: Server) -> None:
    for server in (bare, gateway):
        _load(server.port, arguments.connections, 1.0, asked)
    rounds = [
        tuple(
            _measured(server, arguments.connections, arguments.seconds, asked)
            for server in (bare, gateway)
        )
        for _ in range(arguments.rounds)
    ]
    for name, runs in zip(("bare", "gateway"), zip(*rounds, strict=True), strict=True):
        seen = [run for run, _ in runs]
        rate, cpu = median(run.rate for run in seen), median(cpu for _, cpu in runs)
        p50, p99 = median(run.p50 for run in seen), median(run.p99 for run in seen)
        times = f"p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
        _say(f"{name:>8}: {rate:7.0f}/s, {times}, {cpu * 1e6:.0f} us of CPU each")
    rates = [seen.rate / least.rate for (least, _), (seen, _) in rounds]
    cpus = [least / spent for (_, least), (_, spent) in rounds]
    _say(
        f"    that is {median(rates):.0%} of the bare handler's rate "
        f"({min(rates):.0%} to {max(rates):.0%} in {len(rates)} rounds); "
        f"{median(cpus):.0%} if only CPU time counts"
    )


def _measured(
    server: Server, connections: int, seconds: float, asked: Path
) -> tuple[Loaded, float]:
    """What the load saw, and the server's CPU seconds for each request."""
    before = usage_of([server.pid]).cpu
    seen = _load(server.port, connections, seconds, asked)
    return seen, (usage_of([server.pid]).cpu - before) / seen.requests


def _load(port: int, connections: int, seconds: float, asked: Path) -> Loaded:
    command = [sys.executable, "-m", "bench.gateway.load"]
    arguments = [str(port), str(connections), str(seconds), str(asked)]
    done = subprocess.run([*command, *arguments], cwd=CHECKOUT, check=True, stdout=subprocess.PIPE)
    return Loaded.model_validate_json(done.stdout)


def _settings(work: Path, url: str, port: int) -> Path:
    path = work / "settings.json"
    content = {
        "data_dir": str(work),
        "systems": {SYSTEM: {"image_dir": str(work / "images")}},
        "catalog": {"url": url},
        # The load comes from one address and is meant.
        "gateway": {
            "listen": f"127.0.0.1:{port}",
            "requests_per_second": 1_000_000,
            "request_burst": 1_000_000,
        },
        "log": {"format": "json", "level": "warning"},
    }
    path.write_text(json.dumps(content))
    return path


@contextmanager
def _serving(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bench.gateway.serve", *arguments]
    process = subprocess.Popen(command, cwd=CHECKOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urlopen(url, timeout=5):  # noqa: S310 - our own
                return
        except (URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _memory(process: subprocess.Popen[bytes]) -> str:
    return f"{anonymous_memory([process.pid]) / (1 << 20):.0f} MiB"


def _lag(port: int) -> str:
    """From the gateway's own histogram: how late timers ran, over its life."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    name = "dray_event_loop_lag_seconds"
    buckets = [line for line in lines if line.startswith(f"{name}_bucket")]
    counts = {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in buckets}
    total = counts["+Inf"]
    least = next(bound for bound, count in counts.items() if count == total)
    return f"{total:.0f} timers, {counts['0.05'] / total:.2%} less than 50 ms late, all < {least} s"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
