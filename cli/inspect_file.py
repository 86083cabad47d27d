"""What a squashfs file tells of itself, of whoever made it, and whether its bytes are right."""

import threading
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from cli.defaults import own_cache_dir
from cli.errors import CliError, UsageError
from cli.http import Json
from shared.image.planning.shares import layer_shares
from shared.image.reading.check import check as check_squashfs
from shared.image.reading.inspection import FoundImage, read_image, verify_by_itself
from shared.image.recipe import PackKey
from shared.store.inventory import stored
from shared.store.store import Held

_FOREIGN: Final = (
    "It was not made by Dray, or its end is cut off: it says nothing of layers. What stands above "
    "is what its superblock says."
)


class FileUnreadableError(CliError):
    """The file cannot be opened or read."""

    code = "file_unreadable"


def file_facts(path: Path, cache: Path | None, *, check: bool) -> Json:
    if cache is not None and not (cache / "recipes").is_dir():
        raise UsageError(f"{cache} is no pack store, or one that no image was made from yet")
    try:
        image = read_image(path)
        facts = _facts(image, _packs_in(cache or own_cache_dir(), image))
        if check:
            facts["checked"] = _checked(image)
    except OSError as exc:
        name = exc.filename or path
        raise FileUnreadableError(f"{name} cannot be read: {exc.strerror or exc}") from exc
    return facts


def _facts(image: FoundImage, others: Counter[PackKey] | None) -> Json:
    superblock, said = image.superblock, image.description
    facts: Json = {
        "file": str(image.path),
        "size": image.size,
        "inodes": superblock.inodes,
        "compression": superblock.compression,
        "block_size": superblock.block_size,
    }
    if said is None:
        return facts | {
            "options": None,
            "source": None,
            "runs": {},
            "layers": [],
            "layers_known": False,
            "unknown": _FOREIGN,
        }
    return facts | {
        "id": said.image_id,
        "options": said.options.model_dump(mode="json"),
        "source": {"manifest": said.source.manifest, "config": said.source.config},
        "runs": said.config.model_dump(mode="json"),
        "layers": [
            share.model_dump() | {"others": None if others is None else others[share.pack]}
            for share in layer_shares(said.layers, said.segments)
        ],
        "layers_known": True,
        "segments": [segment.model_dump() for segment in said.segments],
    }


def _packs_in(cache: Path, image: FoundImage) -> Counter[PackKey] | None:
    """How many other images of a pack store have each pack; None where there is no store."""
    if image.description is None or not (cache / "recipes").is_dir():
        return None
    others: Counter[PackKey] = Counter()
    for image_id, recipe in stored(cache, "recipes"):
        if image_id != image.description.image_id:
            try:
                others.update(set(Held.model_validate_json(Path(recipe.path).read_bytes()).packs))
            except (FileNotFoundError, ValidationError):
                continue  # removed meanwhile, or for the store's own scrub to find
    return others


def _checked(image: FoundImage) -> Json:
    """All bytes against their digests where the image names these, and squashfs' own rules."""
    digest = None
    if image.description is not None:
        digest = verify_by_itself(image, threading.Event())
    report = asdict(check_squashfs(image.path))
    bytes_too = "every byte is what the image says" if digest else "it names no digests"
    verdict = f"sound: {report['names']:,} names can be read, and {bytes_too}"
    return {"verdict": verdict, "content_digest": digest, "squashfs": report}
