"""A user's home, and files opened as her."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.converter.user_files.as_user import AsUser, User, Users
from shared.deadline import Deadline
from tests.support.private_site import ALICE, TEAM
from tests.support.users import let_everybody_in


@pytest.fixture
def home(tmp_path: Path) -> Path:
    let_everybody_in(tmp_path)
    return tmp_path


@pytest.fixture
async def alices(home: Path) -> AsyncIterator[AsUser]:
    async with Users((home,)).files(User(ALICE, (ALICE, TEAM)), Deadline.after(30)) as files:
        yield files


@pytest.fixture
async def anywhere(home: Path) -> AsyncIterator[AsUser]:
    async with Users().files(User(ALICE, (ALICE,)), Deadline.after(30)) as files:
        yield files
