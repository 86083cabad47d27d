"""A real Prometheus with the site's own settings and rules, over services that run."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.conditions import eventually
from tests.support.monitoring import PROMETHEUS, documented, need_prometheus, promtool, rules
from tests.support.ports import free_port
from tests.support.processes import STOP_SECONDS
from tests.support.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    need_prometheus()
    async with Site(tmp_path / "site", {"agent": {"mount": "unpack"}}) as site:
        await site.up()
        yield site


def write_settings(folder: Path, gateway: str) -> Path:
    """The site's folder with `dray up` alone in its targets, and a quicker clock."""
    shutil.copytree(PROMETHEUS, folder, ignore=shutil.ignore_patterns("tests"))
    for file in (folder / "targets").glob("*.yml"):
        file.write_text(json.dumps([{"targets": [gateway] if file.stem == "gateways" else []}]))
    settings = yaml.safe_load((folder / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in settings["scrape_configs"]:
        job.pop("scrape_interval", None)
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    return folder / "prometheus.yml"


@contextmanager
def prometheus(settings: Path, data: Path) -> Iterator[str]:
    """Its address, while it runs."""
    address = f"127.0.0.1:{free_port()}"
    with (data.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={settings}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


class Asking:
    """Questions to Prometheus; nothing while it does not answer yet."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        try:
            async with self._http.get(f"{self._url}/api/v1/{path}", params=query) as response:
                if response.status != 200:
                    return {}
                data: dict[str, Any] = (await response.json())["data"]
                return data
        except aiohttp.ClientError:
            return {}

    async def values(self, expr: str) -> dict[str, float]:
        """Each series by its labels."""
        found = (await self.get("query", query=expr)).get("result", [])
        return {json.dumps(each["metric"]): float(each["value"][1]) for each in found}

    async def evaluated(self) -> list[dict[str, Any]]:
        """All rules, once each has been evaluated."""
        groups = (await self.get("rules")).get("groups", [])
        found = [rule for group in groups for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else []


async def test_a_running_site_is_seen_and_raises_no_alarm(site: Site, tmp_path: Path) -> None:
    settings = write_settings(tmp_path / "prometheus", site.url.removeprefix("http://"))
    promtool("check", "config", settings)
    async with aiohttp.ClientSession() as http:
        with prometheus(settings, tmp_path / "tsdb") as url:
            ask = Asking(http, url)

            async def up() -> bool:
                return list((await ask.values("up")).values()) == [1.0]

            await eventually(up, within=20)

            async def recorded() -> bool:
                consumers = await ask.values(
                    'queue:dray_queue_consumers:max{queue="converter.pulls"}'
                )
                stages = await ask.values("state:dray_pulls:max")
                lag = await ask.values("job_instance:dray_event_loop_lag_seconds:p99_10m")
                asked = await ask.values('status:dray_http_requests:rate5m{status="200"}')
                return bool(all((consumers, stages, lag, asked)) and 0.0 not in consumers.values())

            await eventually(recorded, within=30)
            found = await eventually(ask.evaluated, within=20)
            assert len(found) == len(rules("alert")) + len(rules("record"))
            assert [rule for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []
            firing = await ask.values('ALERTS{alertstate="firing"}')
            assert firing == {}


async def test_the_page_is_as_prometheus_wants_it(site: Site) -> None:
    """The page of `dray up` has every metric of every service: they are one process."""
    page, names = "", set[str]()

    async def looked_at() -> bool:
        """How the site stands is on it a moment after the start."""
        nonlocal page, names
        async with http.get(f"{site.url}/metrics") as response:
            page = await response.text()
        found = re.findall(r"^# TYPE (dray_\w+) \w+$", page, re.MULTILINE)
        names = {name for name in found if not name.endswith("_created")}
        return "dray_dead_letters" in names

    async with aiohttp.ClientSession() as http:
        await eventually(looked_at, within=20)
    assert names == set(documented())
    promtool("check", "metrics", text=page)
