"""docker-compose.yml and the Dockerfile as data, for tests that have no container engine."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
_VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")


@dataclass(slots=True)
class Stage:
    """One FROM of a Dockerfile and what follows it, in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [value for name, value in self.instructions if name == instruction]

    def last(self, instruction: str) -> str | None:
        return next(iter(reversed(self.all(instruction))), None)

    def command(self) -> list[str]:
        """CMD in its exec form; anything else is no JSON and fails."""
        value = self.last("CMD")
        assert value is not None
        return list(json.loads(value))

    def healthcheck(self) -> list[str]:
        value = self.last("HEALTHCHECK")
        assert value is not None
        return list(json.loads(value.partition("CMD ")[2]))


def read_dockerfile(path: Path = DOCKERFILE) -> dict[str, Stage]:
    """The stages by name."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            base, _, stage = value.partition(" AS ")
            current = stages[stage] = Stage(base)
        else:
            assert current is not None, f"{name} before the first FROM"
            current.instructions.append((name, " ".join(value.split())))
    return stages


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in; one that has no value raises KeyError."""
    text = _VARIABLE.sub(lambda found: variables[found[1]], COMPOSE.read_text())
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def compose_variables() -> set[str]:
    """Every variable that the file asks for."""
    return {found[1] for found in _VARIABLE.finditer(COMPOSE.read_text())}


@dataclass(frozen=True, slots=True)
class Volume:
    """One line under `volumes` of a service."""

    source: str
    target: str
    read_only: bool

    @property
    def is_path(self) -> bool:
        return self.source.startswith((".", "/"))


def volumes(service: Mapping[str, Any]) -> list[Volume]:
    found = []
    for line in service.get("volumes", ()):
        source, target, *mode = line.split(":")
        found.append(Volume(source, target, mode == ["ro"]))
    return found


def read_rabbitmq_conf() -> dict[str, str]:
    text = (ROOT / "deploy/docker/rabbitmq.conf").read_text()
    pairs = (line.partition("=") for line in text.splitlines() if line and line[0] != "#")
    return {key.strip(): value.strip() for key, _, value in pairs}


def shell_words(text: str) -> list[str]:
    return shlex.split(text, comments=True)
