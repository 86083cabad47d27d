"""docs/modules.md against the model."""

import re
from pathlib import Path

from pydantic import BaseModel

from services.node_agent.inside.module import BindEntry, CopyEntry, Hook, Module
from shared.inside.devices import OF_NODE, OF_VENDOR
from shared.settings.inside import EnvSettings

PAGE = (Path(__file__).parents[3] / "docs/modules.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("\n## What a module can say")[2].partition("\n## ")[0]
ROWS: dict[str, str] = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TABLE, re.MULTILINE))


def test_the_table_has_exactly_the_keys_that_there_are() -> None:
    assert list(ROWS) == list(Module.model_fields)
    for key, field in Module.model_fields.items():
        text, default = (word.strip() for word in ROWS[key].rsplit("|", 1))
        assert text
        assert default == ("`false`" if field.default is False else ""), key


def test_the_keys_of_what_is_in_a_module() -> None:
    parts: dict[str, type[BaseModel]] = {
        "binds": BindEntry, "copies": CopyEntry, "env": EnvSettings, "before": Hook
    }  # fmt: skip
    for key, model in parts.items():
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in ROWS[key], f"{key}.{name}"


def test_the_variables_of_schedulers() -> None:
    for variable in (*OF_NODE, *OF_VENDOR.values()):
        assert f"`{variable}`" in PAGE
