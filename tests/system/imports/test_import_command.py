"""`dray import` as a user types it, against a whole site."""

from pathlib import Path

import pytest

from tests.support.imports import docker_archive, dray, settled
from tests.support.private_site import ALICE, BOB, secret_image
from tests.support.site import Site

pytestmark = pytest.mark.root


async def test_a_user_imports_looks_up_lists_and_removes(site: Site, home: Path) -> None:
    path = docker_archive(home / "app.tar", secret_image(), ALICE)
    await settled(path)
    done = dray(site, ALICE, home, "import", "app.tar", "load_test:v1", "--user", str(BOB))
    assert done.returncode == 0, done.stderr
    assert "READY  custom:load_test:v1  private, id " in done.stdout
    again = dray(site, ALICE, home, "import", "app.tar", "load_test:v1")
    assert "unchanged, private" in again.stdout
    for uid in (ALICE, BOB):
        found = dray(site, uid, home, "lookup", "-q", "custom:load_test:v1")
        assert len(found.stdout.strip()) == 64, found.stderr
        assert "custom:load_test:v1" in dray(site, uid, home, "images").stdout
    gone = dray(site, ALICE, home, "rm", "custom:load_test:v1")
    assert gone.returncode == 0, gone.stderr
    absent = dray(site, ALICE, home, "lookup", "custom:load_test:v1")
    assert absent.returncode == 1
    assert "dray import --system cluster FILE custom:load_test:v1" in absent.stderr


async def test_why_it_did_not_work_is_said(site: Site, home: Path) -> None:
    docker_archive(home / "hers.tar", secret_image(), BOB)
    failed = dray(site, ALICE, home, "import", "hers.tar", "x")
    assert failed.returncode == 1
    assert "hers.tar cannot be read: Permission denied" in failed.stderr
    refused = dray(site, 61009, home, "import", "hers.tar", "x")
    assert refused.returncode == 1
    assert "imports.allow" in refused.stderr
    pulled = dray(site, ALICE, home, "pull", "custom:x")
    assert pulled.returncode == 1
    assert "dray import" in pulled.stderr
