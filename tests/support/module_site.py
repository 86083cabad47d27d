"""A site's modules and a node's CDI files, as an administrator would write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from services.node_agent.inside.adding import SiteModules


class ModuleSite:
    """In a directory of the test's."""

    def __init__(self, root: Path) -> None:
        self.modules = root / "modules"
        self.cdi = root / "cdi"
        self.run_cdi = root / "run-cdi"
        for place in (self.modules, self.cdi, self.run_cdi):
            place.mkdir(mode=0o755, parents=True)
        self.site = SiteModules(self.modules, (self.cdi, self.run_cdi))

    def module(self, name: str, **fields: Any) -> Path:
        return _write(self.modules / f"{name}.yaml", yaml.safe_dump(fields))

    def broken(self, name: str, content: str) -> Path:
        return _write(self.modules / f"{name}.yaml", content)

    def describe(
        self, kind: str, devices: Mapping[str, Any], *, run: bool = False, **edits: Any
    ) -> Path:
        """Devices of a class, by their names; `edits` are for all of them."""
        spec = {
            "cdiVersion": "0.6.0",
            "kind": kind,
            "devices": [{"name": name, "containerEdits": each} for name, each in devices.items()],
            "containerEdits": edits,
        }
        directory = self.run_cdi if run else self.cdi
        return _write(directory / f"{kind.partition('/')[2]}.json", json.dumps(spec))


def _write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    path.chmod(0o644)
    return path
