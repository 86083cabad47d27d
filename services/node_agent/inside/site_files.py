"""Small files of the administrator's, YAML or JSON: read again when they change, one by one.

A file that is wrong takes nothing down but what it describes.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from services.node_agent.errors import InsideRefusedError
from shared.logging import get_logger
from shared.yaml_errors import YAML_ERRORS

log = get_logger(__name__)

Content = TypeVar("Content", bound=BaseModel)

_MOST_BYTES: Final = 2 << 20
_MOST_FILES: Final = 256
_DEEPEST: Final = 32
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Files(Generic[Content]):
    """Those of one directory, by their names; without the suffix where all have the same."""

    found: Mapping[str, Content] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    """Why one cannot be used."""


class SiteFiles(Generic[Content]):
    """A directory that need not be there."""

    def __init__(self, directory: Path, model: type[Content], *suffixes: str) -> None:
        self.directory = directory
        self._model = model
        self._suffixes = suffixes
        self._known: dict[str, tuple[tuple[int, ...], Content | str]] = {}

    def read(self) -> Files[Content]:
        """As they are now. Blocks."""
        known: dict[str, tuple[tuple[int, ...], Content | str]] = {}
        for path in self._paths():
            known[path.name] = self._one(path)
        self._known = known
        alike = len(self._suffixes) == 1
        contents = {
            Path(name).stem if alike else name: content
            for name, (_, content) in sorted(known.items())
        }
        return Files(
            {name: each for name, each in contents.items() if not isinstance(each, str)},
            {name: each for name, each in contents.items() if isinstance(each, str)},
        )

    def _paths(self) -> list[Path]:
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - names are what is wanted
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise InsideRefusedError(
                f"the operators have to look at this node: {self.directory} cannot be read "
                f"({exc.strerror})"
            ) from exc
        paths = [self.directory / name for name in names if not name.startswith(".")]
        return sorted(path for path in paths if path.suffix in self._suffixes)[:_MOST_FILES]

    def _one(self, path: Path) -> tuple[tuple[int, ...], Content | str]:
        try:
            found = path.stat()
        except OSError as exc:
            return (), f"{path} cannot be read: {exc.strerror}"
        version = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode, found.st_uid)
        if (known := self._known.get(path.name)) is not None and known[0] == version:
            return known
        content = _untrusted(path, found) or load(path, self._model)
        if isinstance(content, str):
            log.error("site_file_broken", file=str(path), reason=content)
        return version, content


def _untrusted(path: Path, found: os.stat_result) -> str | None:
    """Root does what it says: nobody else may have written it."""
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written to by others than root: chown root, chmod go-w"
    return None


def load(path: Path, model: type[Content]) -> Content | str:
    """What is in a file, or why nothing can be made of it. JSON is YAML, too."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            return f"{path} has more than {_MOST_BYTES >> 20} MiB"
        return parse(content, model)
    except OSError as exc:
        return f"{path} cannot be read: {exc.strerror}"
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}"
    except YAML_ERRORS as exc:
        return f"{path} is no YAML: {' '.join(str(exc).split())[:300]}"


def parse(content: bytes, model: type[Content]) -> Content:
    """Raises ValidationError or YAML_ERRORS."""
    depth = 0
    for event in yaml.parse(content, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            # A few bytes could stand for gigabytes.
            raise yaml.YAMLError("aliases (*name) are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            # The library's own recursion in C has no end but the stack's.
            raise yaml.YAMLError(f"more than {_DEEPEST} lists and mappings are in each other")
    return model.model_validate(yaml.load(content, _LOADER) or {})  # noqa: S506 - a safe one
