"""What alerts and dashboards read of RabbitMQ, against a real broker's own page."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pytest
import yaml

from shared.bus.connect import connect_bus
from shared.config import Settings
from shared.deadline import Deadline
from tests.support.conditions import eventually
from tests.support.monitoring import PROMETHEUS, documented, expressions, names_in
from tests.support.rabbitmq import RabbitNode, need_rabbitmq

DETAILED: Final = "rabbitmq_detailed_"


@pytest.fixture
async def pages(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The broker's pages as the site's settings ask for them, once our queues are in them."""
    need_rabbitmq()
    node = RabbitNode(tmp_path / "broker", with_metrics=True).start()
    settings = Settings.model_validate(
        {"bus": {"url": node.url}, "systems": {"cluster": {"image_dir": tmp_path / "images"}}}
    )
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    bus = connect_bus(settings, "test")
    try:
        await bus.open(Deadline.after(20))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{node.metrics_port}") as http:

            async def fetch(job: dict[str, Any]) -> str:
                query = urlencode(job.get("params", {}), doseq=True)
                path = f"{job.get('metrics_path', '/metrics')}?{query}"
                async with http.get(path) as response:
                    assert response.status == 200
                    return await response.text()

            async def fetch_all() -> dict[str, str] | None:
                found = {
                    job["job_name"]: await fetch(job)
                    for job in jobs
                    if job["job_name"].startswith("rabbitmq")
                }
                return found if 'queue="converter.pulls"' in found["rabbitmq-queues"] else None

            found = await eventually(fetch_all, within=20)
            assert found is not None
            yield found
    finally:
        await bus.close()
        node.discard()


async def test_the_broker_has_every_metric_that_is_named(pages: dict[str, str]) -> None:
    named = {n for _, expr in expressions() for n in names_in(expr) if n.startswith("rabbitmq_")}
    told = {
        job: set(re.findall(r"^(rabbitmq_\w+)(?:\{| )", text, re.MULTILINE))
        for job, text in pages.items()
    }
    assert {n for n in named if n.startswith(DETAILED)} - told["rabbitmq-queues"] == set()
    assert {n for n in named if not n.startswith(DETAILED)} - told["rabbitmq"] == set()
    assert (
        'rabbitmq_detailed_queue_messages{vhost="/",queue="dray.dead"} 0'
        in (pages["rabbitmq-queues"])
    )
    assert not any(name.startswith("rabbitmq_") for name in documented())
