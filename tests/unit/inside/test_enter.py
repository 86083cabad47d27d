"""Whether a node's users may have namespaces of their own."""

from pathlib import Path

import pytest

from shared.inside.enter import REFUSING, users_may_have_namespaces


def test_they_may_where_nothing_says_otherwise(tmp_path: Path) -> None:
    assert users_may_have_namespaces(tmp_path)
    (tmp_path / "user").mkdir()
    (tmp_path / "user/max_user_namespaces").write_text("15000\n")
    assert users_may_have_namespaces(tmp_path)


@pytest.mark.parametrize(("name", "value"), REFUSING)
def test_each_setting_that_refuses_is_seen(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    assert not users_may_have_namespaces(tmp_path)
