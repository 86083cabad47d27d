"""Specifications of the Container Device Interface, which vendors' tools write for each node.

What a device is to a container: nodes, files, variables and hooks. Fields that concern others,
such as a container's network or the groups of its process, are left alone.
"""

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints

from shared.models import Tolerant
from shared.settings.inside import HostPath


def _words(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _text(value: Any) -> Any:
    """YAML takes `name: 0` for a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _none_is_empty(value: Any) -> Any:
    return () if value is None else value


def _program(path: str) -> str:
    if not PurePosixPath(path).is_absolute():
        raise ValueError("a path from the root on")
    return path


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


class _Part(Tolerant):
    model_config = ConfigDict(alias_generator=_camel, extra="ignore", frozen=True)


NoneIsEmpty = BeforeValidator(_none_is_empty)


class CdiNode(_Part):
    path: HostPath
    host_path: HostPath | None = None


class CdiMount(_Part):
    host_path: HostPath
    container_path: HostPath
    type: str | None = None
    options: Annotated[
        tuple[str, ...], Field(max_length=64), BeforeValidator(_words), NoneIsEmpty
    ] = ()


class CdiHook(_Part):
    hook_name: str
    path: Annotated[str, AfterValidator(_program)]
    args: Annotated[tuple[str, ...], Field(max_length=4096), NoneIsEmpty] = ()


class CdiEdits(_Part):
    """What is done to a container that gets a device."""

    env: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$")], ...],
        Field(max_length=1024),
        NoneIsEmpty,
    ] = ()
    device_nodes: Annotated[tuple[CdiNode, ...], Field(max_length=1024), NoneIsEmpty] = ()
    mounts: Annotated[tuple[CdiMount, ...], Field(max_length=1024), NoneIsEmpty] = ()
    hooks: Annotated[tuple[CdiHook, ...], Field(max_length=256), NoneIsEmpty] = ()


class CdiDevice(_Part):
    name: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$"),
        BeforeValidator(_text),
    ]  # fmt: skip
    container_edits: CdiEdits = CdiEdits()


class CdiSpec(_Part):
    """One file."""

    cdi_version: Annotated[str, StringConstraints(pattern=r"^v?[01]\.[0-9]+(\.[0-9]+)?([-+].*)?$")]
    kind: Annotated[
        str,
        StringConstraints(
            pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
        ),
    ]
    devices: Annotated[tuple[CdiDevice, ...], Field(min_length=1, max_length=4096)]
    container_edits: CdiEdits = CdiEdits()
    """Done once, whichever of its devices a container gets."""
