"""The devices of this node by the names that CDI has for them: vendor.com/class=name.

`=all` is all of a class; `=job` those that the scheduler gave to the job.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.cdi_spec import CdiEdits, CdiSpec
from services.node_agent.inside.gpus import given, renumbered
from services.node_agent.inside.site_files import SiteFiles

DIRECTORIES: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""What the later one says of a device holds."""
ALL: Final = "all"
OF_JOB: Final = "job"
_FEWEST_OF_ID: Final = 8


@dataclass(frozen=True, slots=True)
class Edits:
    """What of one file is done for a job."""

    file: str
    edits: tuple[CdiEdits, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Class:
    """The devices of one class: in which file each is, by its name."""

    files: dict[str, list[tuple[str, CdiSpec]]] = field(default_factory=dict)


class CdiDevices:
    """Those that this node's files describe, as they are now."""

    def __init__(self, directories: Sequence[Path] = DIRECTORIES) -> None:
        self._directories = [SiteFiles(each, CdiSpec, ".json", ".yaml") for each in directories]

    def edits(self, names: Sequence[str], env: Mapping[str, str]) -> list[Edits]:
        """Of these devices, file by file. Blocks."""
        if not names:
            return []
        classes, broken = self._read()
        chosen: dict[str, tuple[CdiSpec, dict[str, None]]] = {}
        variables: dict[str, str] = {}
        for name in names:
            kind, _, device = name.partition("=")
            if device == OF_JOB:
                devices, changed = self._of_job(kind, classes, broken, env)
                variables |= changed
            else:
                devices = self._named(kind, device, classes, broken)
            for each in devices:
                file, spec = self._only(kind, each, classes)
                chosen.setdefault(file, (spec, {}))[1][each] = None
        found = [
            Edits(file, (spec.container_edits, *_of_devices(spec, wanted)))
            for file, (spec, wanted) in chosen.items()
        ]
        return [*found, *([Edits("", (), variables)] if variables else [])]

    def _read(self) -> tuple[dict[str, _Class], list[str]]:
        classes: dict[str, _Class] = {}
        broken: list[str] = []
        for directory in self._directories:
            read = directory.read()
            broken += read.broken.values()
            here: dict[str, _Class] = {}
            for file, spec in read.found.items():
                devices = here.setdefault(spec.kind, _Class()).files
                for device in spec.devices:
                    entry = (str(directory.directory / file), spec)
                    devices.setdefault(device.name, []).append(entry)
            for kind, found in here.items():
                classes.setdefault(kind, _Class()).files.update(found.files)
        return classes, broken

    def _named(
        self, kind: str, device: str, classes: Mapping[str, _Class], broken: Sequence[str]
    ) -> list[str]:
        devices = self._class(kind, classes, broken).files
        if device in devices:
            return [device]
        if device == ALL:
            return list(devices)
        raise InsideRefusedError(
            f"the device {kind}={device} is not described on this node: it has "
            f"{', '.join(sorted(devices)[:32])}"
        )

    def _of_job(
        self,
        kind: str,
        classes: Mapping[str, _Class],
        broken: Sequence[str],
        env: Mapping[str, str],
    ) -> tuple[list[str], dict[str, str]]:
        vendor = kind.partition("/")[0]
        ids = given(vendor, env)
        if not ids:
            return [], {}
        devices = self._class(kind, classes, broken).files
        names = [_device_of(kind, each, devices) for each in ids]
        return names, renumbered(vendor, ids, env)

    def _class(self, kind: str, classes: Mapping[str, _Class], broken: Sequence[str]) -> _Class:
        if (found := classes.get(kind)) is not None:
            return found
        where = " or ".join(str(each.directory) for each in self._directories)
        why = f"; {broken[0]}" if broken else ""
        raise InsideRefusedError(
            f"no file in {where} describes devices of {kind} on this node: its vendor's tool "
            f"writes one (nvidia-ctk cdi generate, amd-ctk cdi generate){why}"
        )

    def _only(self, kind: str, device: str, classes: Mapping[str, _Class]) -> tuple[str, CdiSpec]:
        found = classes[kind].files[device]
        if len(found) > 1:
            files = " and ".join(file for file, _ in found[:2])
            raise InsideRefusedError(
                f"{files} describe the same device {kind}={device}: the operators have to remove "
                "one of them"
            )
        return found[0]


def _of_devices(spec: CdiSpec, wanted: Mapping[str, None]) -> Iterator[CdiEdits]:
    by_name = {device.name: device.container_edits for device in spec.devices}
    yield from (by_name[name] for name in wanted)


def _device_of(kind: str, given_as: str, devices: Mapping[str, object]) -> str:
    """A number may be called gpu0, and an id of its own may be shortened."""
    for name in (given_as, f"gpu{given_as}"):
        if name in devices:
            return name
    alike = [name for name in devices if name.startswith(given_as)]
    if len(alike) == 1 and len(given_as) >= _FEWEST_OF_ID:
        return alike[0]
    raise InsideRefusedError(
        f"the scheduler gave {kind}={given_as}, which no file on this node describes: the "
        "operators have to generate it anew (nvidia-ctk cdi generate, amd-ctk cdi generate)"
    )
