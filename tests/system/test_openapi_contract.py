"""Schemathesis asks a real gateway whatever its description allows, and much that it does not.

No answer may be a 500, or one that the description does not have: status, type, headers and body.
"""

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import API, Running, gateway

SECONDS = 240
"""For a busy machine; it takes a minute on a quiet one."""
EXAMPLES = 12
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
# Streams have no end, and a login asks a converter, of which there is none here.
LEFT_OUT = ("follow_pull", "follow_queue", "follow_all", "follow_job", "log_in")


@pytest.mark.parametrize("who", ["operator", "public"])
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs schemathesis (extra dev)")
async def test_every_answer_is_as_described(who: str, tmp_path: Path) -> None:
    limits: dict[str, Any] = {"requests_per_second": 1_000_000, "request_burst": 1_000_000}
    async with gateway(tmp_path / "data", **limits) as running:
        status, said = await _schemathesis(running, tmp_path, await _headers(running, who))
    assert status == 0, said[-8000:]
    assert "passed" in said


async def _headers(running: Running, who: str) -> list[str]:
    if who == "public":
        return []
    made = await running.ask_locally("/tokens", "POST", {"scopes": ["admin"], "seconds": 600})
    assert made.status == 201, made.body
    return ["--header", f"Authorization: Bearer {made.body['token']}"]


async def _schemathesis(running: Running, work: Path, headers: list[str]) -> tuple[int, str]:
    left_out = [word for name in LEFT_OUT for word in ("--exclude-operation-id", name)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{running.url}{API}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing",
        "--mode", "all",
        "--max-examples", str(EXAMPLES),
        "--request-timeout", "20",
        "--generation-deterministic",
        "--continue-on-failure",
        "--no-color",
        *left_out,
        *headers,
        cwd=work,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace")
