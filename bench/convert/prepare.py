"""Has the images in the registry before anything is measured: made here, or copied from another."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.convert.contenders import FLAT_SUFFIX, Source, environment
from bench.convert.dray import DrayUp
from bench.convert.images import SAMPLES, fetch_content
from bench.convert.layers import BuiltLayer, Packed, Scale, build_layers, read_built
from bench.convert.registry import Registry, push_missing


def make_samples(names: Sequence[str], scale: Scale, registry: Registry, work: Path) -> list[str]:
    """Make and push sample images; a line about each."""
    versions = {name: SAMPLES[name].versions() for name in names}
    wanted = {layer for tags in versions.values() for layers in tags.values() for layer in layers}
    fetch_content({layer.name for layer in wanted}, work)
    built = build_layers(wanted, scale, work)
    lines = []
    for name, tags in versions.items():
        images = {tag: [built[layer] for layer in layers] for tag, layers in tags.items()}
        push_missing(registry, name, images)
        lines.append(_described(name, images["v1"]))
    return lines


def _described(name: str, layers: Sequence[BuiltLayer]) -> str:
    packed, plain = sum(x.size for x in layers) / 1e6, sum(x.tar_size for x in layers) / 1e6
    entries = sum(layer.entries for layer in layers)
    return (
        f"{name}:v1  {len(layers)} layers, {packed:,.0f} MB gzip, {plain:,.0f} MB tar, "
        f"{entries:,} entries"
    )


def make_flat(source: Source, tags: Sequence[str], work: Path) -> None:
    """Push each image once more, merged into one layer, for those who cannot merge layers.

    Dray merges it: any tool would do, since this is no part of what is measured.
    """
    flat = source.repository + FLAT_SUFFIX
    for tag in tags:
        layers = source.registry.layers(source.repository, tag)
        key = hashlib.sha256("\n".join(layer.digest for layer in layers).encode()).hexdigest()
        stem = work / "flat" / key[:16]
        known = stem.with_suffix(".json")
        if not known.exists():
            known.parent.mkdir(exist_ok=True)
            merged = _merged(source, tag, work / "flat" / "site", stem.with_suffix(".tar.gz"))
            known.write_text(merged.model_dump_json())
        built = read_built(known, stem.with_suffix(".tar.gz"))
        push_missing(source.registry, flat, {tag: [built]})


def _merged(source: Source, tag: str, directory: Path, blob: Path) -> BuiltLayer:
    with DrayUp().session(source, directory / tag) as site:
        site.convert(tag)
    (image,) = (directory / tag / "images").glob("*.squashfs")
    unfinished = blob.with_suffix(".unfinished")
    with (
        unfinished.open("wb") as file,
        subprocess.Popen(
            ["sqfs2tar", str(image)],  # noqa: S607 - its absence was noticed before
            stdout=subprocess.PIPE,
            env=environment(),
        ) as command,
    ):
        assert command.stdout is not None
        packed = Packed(file)
        while piece := command.stdout.read(1 << 20):
            packed.write(piece)
        packed.finish()
    if command.returncode != 0:
        raise RuntimeError(f"sqfs2tar ended with {command.returncode}")
    image.unlink()
    unfinished.replace(blob)
    return packed.built(blob, entries=0)
