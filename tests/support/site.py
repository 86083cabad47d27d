"""A whole site of real processes, one for each service, that a test can kill and start again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

import aiohttp

from services.distributor.sidecars import Sidecar
from shared.image.making.verify import verify_image
from tests.support.conditions import eventually
from tests.support.ports import free_port
from tests.support.processes import freeze

CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 25.0
SERVICES = ("gateway", "converter", "distributor")

Answer = tuple[int, dict[str, Any]]


class Site:
    """Services over one settings file. `async with`; leaves no process behind.

    Two sites of one directory, with other names, are replicas over the same files.
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any] | None = None, *, name: str = "site"
    ) -> None:
        self.name = name
        self.directory = directory
        self.images = directory / "images"
        self.store = directory / "data" / "store"
        self._ports = {name: free_port() for name in (*SERVICES, "agent")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._config = directory / f"{name}.json"  # JSON is YAML, too
        self._http: aiohttp.ClientSession | None = None
        self._local: aiohttp.ClientSession | None = None
        directory.mkdir(parents=True, exist_ok=True)
        content = _merged(
            {
                "data_dir": str(directory / "data"),
                "systems": {"cluster": {"image_dir": str(self.images)}},
                # Short clocks: a test must see leases run out.
                "pull": {"lease": 2.0, "sweep_interval": 0.2, "max_tries": 10, "fresh_for": 0},
                "log": {"format": "json"},
                **{name: {"listen": f"127.0.0.1:{port}"} for name, port in self._ports.items()},
            },
            settings or {},
        )
        # Replicas over the same files share data_dir, but not the socket.
        content["gateway"].setdefault("socket", str(self.socket))
        content["agent"] |= {"system": "cluster", "node": "node1", "heartbeat": 1.0}
        self._config.write_text(json.dumps(content))

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self._ports['gateway']}"

    @property
    def socket(self) -> Path:
        """The gateway's own: whoever runs the tests runs the gateway, and may do everything."""
        return self.directory / f"{self.name}.sock"

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=30)
        self._http = aiohttp.ClientSession(timeout=timeout)
        self._local = aiohttp.ClientSession(
            "http://localhost",
            connector=aiohttp.UnixConnector(path=str(self.socket)),
            timeout=timeout,
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._http is not None
        assert self._local is not None
        await self._http.close()
        await self._local.close()
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for name in tuple(self._processes):
            self._end(name)
        # An agent that a test killed leaves its mounts to its next start, which never comes.
        unmount_below(self.directory)

    async def start(self, *names: str) -> None:
        """Start services as their own processes, and wait until each is ready."""
        for name in names or SERVICES:
            module = "node_agent" if name == "agent" else name
            self._spawn(
                name, [sys.executable, "-m", f"services.{module}", "--config", self._config]
            )
        for name in names or SERVICES:
            await self._ready(name, name)

    async def up(self) -> None:
        """`dray up`: all of them in one process."""
        dray = Path(sys.executable).with_name("dray")
        self._spawn("up", [dray, "up", "--config", self._config])
        await self._ready("up", "gateway")

    def kill(self, name: str) -> None:
        """SIGKILL: no goodbye, whatever it was doing."""
        self._processes[name].kill()
        self._end(name)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def freeze(self, name: str) -> None:
        freeze(self._processes[name])

    def thaw_all(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGCONT)

    async def stop(self, name: str) -> int:
        """SIGTERM, as a service manager does; returns the exit status."""
        self._processes[name].send_signal(signal.SIGTERM)
        await eventually(lambda: self._processes[name].poll() is not None, within=STOP_SECONDS)
        return self._processes.pop(name).returncode

    def log(self, name: str) -> str:
        return (self.directory / f"{self.name}-{name}.log").read_text(errors="replace")

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] = {}
    ) -> Answer:
        assert self._local is not None
        async with self._local.request(method, path, json=body, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else {}

    async def metrics(self) -> str:
        """What the gateway says to Prometheus; after `up`, it speaks for all services."""
        assert self._http is not None
        async with self._http.get(f"{self.url}/metrics") as response:
            return await response.text()

    def stream(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._local is not None
        return self._local.get(path)

    async def pull(self, reference: str) -> dict[str, Any]:
        status, view = await self.ask("POST", "/api/v1/pulls", {"reference": reference})
        assert status in {200, 202}, view
        return view

    async def pull_view(self, pull_id: str) -> dict[str, Any]:
        """The pull as the gateway tells it; {} while no gateway answers."""
        try:
            return (await self.ask("GET", f"/api/v1/pulls/{pull_id}"))[1]
        except aiohttp.ClientError:
            return {}

    async def reached(self, pull_id: str, *states: str, within: float = 30.0) -> dict[str, Any]:
        """Wait until the pull is in one of these states."""
        view: dict[str, Any] = {}

        async def there() -> bool:
            nonlocal view
            view = await self.pull_view(pull_id)
            return view.get("state") in states

        try:
            await eventually(there, within=within)
        except AssertionError as exc:
            message = f"wanted {states}, found {view}\n{self._tails()}"
            raise AssertionError(message) from exc
        return view

    def check_images(self) -> int:
        """Every image under a final name is whole; returns how many there are."""
        found = sorted(self.images.glob("*.squashfs"))
        for image in found:
            sidecar = Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())
            verify_image(image, sidecar.recipe)
        return len(found)

    def leftovers(self) -> list[Path]:
        """Half-made files, wherever the site writes."""
        return [path for path in self.directory.rglob("*.partial") if path.is_file()]

    def _spawn(self, name: str, command: Sequence[str | Path]) -> None:
        with (self.directory / f"{self.name}-{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "HOME": str(self.directory)},
            )

    async def _ready(self, name: str, served_by: str) -> None:
        url = f"http://127.0.0.1:{self._ports[served_by]}/readyz"

        async def answers() -> bool:
            assert self._http is not None
            status = self._processes[name].poll()
            assert status is None, f"{name} ended with {status}:\n{self.log(name)[-4000:]}"
            try:
                async with self._http.get(url) as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await eventually(answers, within=START_SECONDS)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _tails(self) -> str:
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs
        )


def but_for_use(image: Mapping[str, Any]) -> dict[str, Any]:
    """What a view says of an image itself: asking for it again is a use, which moves its expiry."""
    return {name: it for name, it in image.items() if name not in {"last_used", "expires_at"}}


def unmount_below(directory: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", mount], check=True)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) else value
    return merged
