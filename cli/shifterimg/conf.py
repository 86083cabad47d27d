"""What `shifterimg` takes from Shifter's udiRoot.conf: where the gateways are, and who we are."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.errors import UsageError

VARIABLE: Final = "DRAY_UDIROOT_CONF"
USUAL: Final = (
    Path("/etc/shifter/udiRoot.conf"),
    Path("/etc/opt/nersc/udiRoot/udiRoot.conf"),
    Path("/opt/shifter/default/etc/udiRoot.conf"),
    Path("/etc/udiRoot.conf"),
)
TYPES: Final = ("docker", "custom", "id", "local")
DEFAULT_TIMEOUT: Final = 30.0
MAX_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Conf:
    """The keys that matter here; the others are for the runtime."""

    gateways: tuple[str, ...]
    system: str
    timeout: float = DEFAULT_TIMEOUT
    default_type: str = "docker"


def read_conf() -> Conf:
    """The file that DRAY_UDIROOT_CONF names, or the first of the usual ones."""
    conf = find_conf()
    if conf is None:
        raise UsageError(
            f"there is no udiRoot.conf at {', '.join(map(str, _places()))}: write one with "
            f"imageGateway= and system=, or name yours in {VARIABLE}"
        )
    return conf


def find_conf() -> Conf | None:
    """The same; None where there is none."""
    for place in _places():
        try:
            with place.open(encoding="utf-8", errors="replace") as file:
                return parse_conf(file.read(MAX_SIZE), str(place))
        except FileNotFoundError:
            continue
        except OSError as exc:
            raise UsageError(f"cannot read {place}: {exc.strerror}") from exc
    return None


def _places() -> tuple[Path, ...]:
    given = os.environ.get(VARIABLE)
    return (Path(given),) if given else USUAL


def parse_conf(text: str, name: str) -> Conf:
    found = dict(_entries(text))
    gateways = tuple(url.rstrip("/") for url in found.get("imageGateway", "").split())
    system = found.get("system", "")
    if not gateways or not system:
        missing = "imageGateway" if not gateways else "system"
        raise UsageError(f"{name} says nothing of {missing}=; it has to")
    default_type = found.get("defaultImageType") or "docker"
    if default_type not in TYPES:
        raise UsageError(
            f"in {name}, defaultImageType={default_type} is none of {', '.join(TYPES)}"
        )
    return Conf(gateways, system, _timeout(found.get("gatewayTimeout", "")), default_type)


def _timeout(text: str) -> float:
    digits = text.strip()
    seconds = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else 0
    return float(seconds) or DEFAULT_TIMEOUT


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """`key=value` lines; a backslash at the end continues a value, `#` begins a comment line."""
    key, parts = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not parts:
            key, equals, value = line.partition("=")
            if not equals:
                continue
        else:
            value = line
        value = value.strip()
        more = value.endswith("\\")
        parts.append(value.removesuffix("\\").strip())
        if not more:
            yield key.strip(), " ".join(parts).strip()
            parts = []
    if parts:
        yield key.strip(), " ".join(parts).strip()
