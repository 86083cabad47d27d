"""`dray inspect`: what an image is made of, told by its file or by a gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli import show
from cli.answers import reading
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.tables import Column, table


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to know about which image."""

    image: str
    url: str
    system: str | None
    cache: Path | None
    check: bool


def inspect(wish: Wish, *, json: bool) -> int:
    facts = _of_file(wish) if _names_a_file(wish.image) else _of_gateway(wish)
    facts["totals"] = _totals(facts)
    if json:
        show.document(facts)
        return 0
    _describe(facts)
    _tell_layers(facts)
    return 0


def _names_a_file(image: str) -> bool:
    return image.startswith(("/", "./", "../")) or Path(image).is_file()


def _of_file(wish: Wish) -> Json:
    from cli.inspect_file import file_facts  # noqa: PLC0415 - loads pydantic, and codecs

    return file_facts(Path(wish.image), wish.cache, check=wish.check)


def _of_gateway(wish: Wish) -> Json:
    if wish.check or wish.cache:
        raise UsageError(
            f"--check and --cache are for files, and {wish.image} is none: write it like "
            "./image.squashfs"
        )
    gateway = Gateway(wish.url)
    raw = gateway.image_detail(wish.image, wish.system)
    with reading("an image"):
        options = raw["options"]
        return {
            "reference": raw["reference"],
            "system": raw["system"],
            "id": raw["id"],
            "content_digest": raw["content_digest"],
            "size": raw["size"],
            "inodes": raw["inodes"],
            "compression": options["compression"],
            "block_size": options["block_size"],
            "options": options,
            "layout": raw.get("layout"),
            "source": {"manifest": raw["manifest_digest"], "config": raw["config_digest"]},
            "runs": {name: raw[name] for name in ("entrypoint", "cmd", "workdir", "env", "labels")},
            "layers": raw["shares"],
            "layers_known": len(raw["shares"]) == len(raw["layers"]),
        }


def _totals(facts: Json) -> Json | None:
    """What the layers come to; `tables` is all that is no layer's data."""
    layers = facts["layers"]
    if not facts["layers_known"]:
        return None
    with reading("an image"):
        data = sum(layer["size"] for layer in layers)
        counted = all(layer["others"] is not None for layer in layers)
        shared = sum(layer["size"] for layer in layers if layer["others"])
        return {
            "data": data,
            "dead": sum(layer["dead"] for layer in layers),
            "left_out": sum(layer["left_out"] for layer in layers),
            "shared": shared if counted else None,
            "own": facts["size"] - shared if counted else None,
            "tables": facts["size"] - data,
        }


def _describe(facts: Json) -> None:
    with reading("an image"):
        lines = _lines(facts) | _runs(facts["runs"])
        if facts.get("checked"):
            lines["check"] = facts["checked"]["verdict"]
    show.facts(lines)


def _lines(facts: Json) -> dict[str, str]:
    options, level = facts["options"], ""
    lines: dict[str, str] = {
        name: facts[name] for name in ("reference", "system", "file", "id") if name in facts
    }
    lines |= facts["source"] or {}
    lines["size"] = f"{show.size(facts['size'])} ({facts['size']:,} bytes)"
    lines["inodes"] = f"{facts['inodes']:,}"
    if options:
        lines["files"] = _kept(options)
        level = f" level {options['level']}"
    lines["blocks"] = f"{facts['compression']}{level}, {facts['block_size'] >> 10} KiB"
    if facts.get("layout"):
        lines["layout"] = _layout(facts["layout"])
    return lines


def _layout(layout: Json) -> str:
    """Of the image's file on Lustre."""
    stripes = layout["stripes"]
    words = ["stripes unknown" if stripes is None else f"{stripes} stripe{'s' * (stripes != 1)}"]
    if layout["stripe_size"]:
        words[0] += f" of {layout['stripe_size'] >> 10} KiB"
    words += [f"pool {layout['pool']}"] * bool(layout["pool"])
    words += [f"{layout['mirrors']} mirrors"] * (layout["mirrors"] > 1)
    words += ["warmed"] * layout["warmed"]
    words += [f"not as configured: {layout['fallback']}"] * bool(layout["fallback"])
    return ", ".join(words)


def _runs(config: Json) -> dict[str, str]:
    """What the image says of how it is run, as far as it says something."""
    lines = {name: config.get(name, "") for name in ("workdir", "user")}
    lines |= {name: " ".join(config.get(name, ())) for name in ("entrypoint", "cmd")}
    lines["env"] = "\n".join(config.get("env", ()))
    lines["labels"] = "\n".join(f"{key}={text}" for key, text in config.get("labels", {}).items())
    return {name: text for name, text in lines.items() if text}


def _kept(options: Json) -> str:
    owners = "owners as in the image" if options["keep_owners"] else "all owned by root"
    setuid = "setuid kept" if options["keep_setuid"] else "no setuid"
    devices = "devices kept" if options["keep_devices"] else "no devices"
    xattrs = ", ".join(options["xattrs"]) or "none"
    return f"{owners}; {setuid}; {devices}; xattrs: {xattrs}"


def _tell_layers(facts: Json) -> None:
    totals, layers, size = facts["totals"], facts["layers"], facts["size"]
    if totals is None:
        print(f"\n{show.plain(facts['unknown'])}" if "unknown" in facts else _EARLIER)
        return
    with reading("an image"):
        rows = [
            (
                str(number),
                str(layer["digest"]).removeprefix("sha256:")[: show.SHORT_ID],
                show.size(layer["size"]),
                _percent(layer["size"], size),
                show.size(layer["dead"]),
                _percent(layer["dead"], layer["size"]),
                show.size(layer["left_out"]),
                str(layer["pieces"]),
                "" if layer["others"] is None else str(layer["others"]),
            )
            for number, layer in enumerate(layers, 1)
        ]
    print()
    table(_COLUMNS, rows, "It has no layers.")
    print()
    for line in _sums(totals, size, layers):
        print(line)


_COLUMNS: Final = (
    Column("#", worth=9, right=True),
    Column("DIGEST", worth=4),
    Column("SIZE", worth=8, right=True),
    Column("OF IMAGE", worth=5, right=True),
    Column("DEAD", worth=7, right=True),
    Column("OF LAYER", worth=3, right=True),
    Column("LEFT OUT", worth=2, right=True),
    Column("PIECES", worth=1, right=True),
    Column("OTHERS", worth=6, right=True),
)
_EARLIER: Final = (
    "\nAn earlier version of Dray placed this image: what its layers share is not known. "
    "`dray pull --force` makes it known."
)


def _sums(totals: Json, size: int, layers: Sequence[Json]) -> list[str]:
    dead = f"{show.size(totals['dead'])} ({_percent(totals['dead'], size)})"
    lines = [
        f"{'data':<11} {show.size(totals['data'])} in {show.count(len(layers), 'layer')}",
        f"{'dead':<11} {dead}; {show.size(totals['left_out'])} left out",
    ]
    if totals["shared"] is not None:
        lines.append(
            f"{'shared':<11} {show.size(totals['shared'])} with other images; "
            f"{show.size(totals['own'])} are its own"
        )
    return [*lines, f"{'tables':<11} {show.size(totals['tables'])}"]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
