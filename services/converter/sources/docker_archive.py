"""What `docker save` and its like write: manifest.json names configs and layers in the archive.

It promises no digests of blobs. The config's file is named by its digest, and the config holds the
digests of the layers' tars: these are checked.
"""

import hashlib
import re
from functools import partial
from typing import Annotated, Final

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from services.converter.registry.documents import (
    MAX_CONFIG,
    MAX_MANIFEST,
    check_count,
    check_fits,
    parse_config,
)
from services.converter.registry.errors import ContentMismatchError
from services.converter.registry.platforms import Platform
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.sources.files import Files, needed_document, stream
from services.converter.sources.interface import SourceImage, SourceLayer
from services.converter.sources.naming import same_image, sole
from shared.image.recipe import SourceDigests
from shared.models import Tolerant

MANIFEST: Final = "manifest.json"

_DIGEST_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")
_Name = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class _Entry(Tolerant):
    config: _Name = Field(alias="Config")
    tags: Annotated[tuple[_Name, ...], Field(max_length=4096)] | None = Field(
        default=None, alias="RepoTags"
    )
    layers: Annotated[tuple[_Name, ...], Field(max_length=1024)] | None = Field(
        default=None, alias="Layers"
    )


_ENTRIES = TypeAdapter(Annotated[tuple[_Entry, ...], Field(max_length=4096)])


def resolve(files: Files, name: str | None, platform: Platform) -> SourceImage:
    """The image of that name, or the only one there is. Blocks."""
    entry = _chosen(files, name)
    config_body = needed_document(files, entry.config, MAX_CONFIG)
    digest = _config_digest(files, entry.config, config_body)
    config = parse_config(config_body, files.called)
    layers = entry.layers or ()
    check_count(len(layers), files.called)
    check_fits(config, len(layers), platform, files.called)
    return SourceImage(
        called=files.called,
        config=config.run,
        # Nothing else names this image: neither a reference nor a manifest with a digest.
        digests=SourceDigests(
            reference=digest, manifest=digest, config=digest, layers=config.diff_ids
        ),
        layers=tuple(
            _layer(files, layer, diff_id)
            for layer, diff_id in zip(layers, config.diff_ids, strict=True)
        ),
    )


def _chosen(files: Files, name: str | None) -> _Entry:
    try:
        entries = _ENTRIES.validate_json(needed_document(files, MANIFEST, MAX_MANIFEST))
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        raise ArchiveInvalidError(
            f"{MANIFEST} in {files.called} is not valid ({first['msg'][:200]}): "
            "it was not written by docker save or its like"
        ) from None
    names = sorted({tag for entry in entries for tag in entry.tags or ()})
    wanted = [
        entry
        for entry in entries
        if name is None or any(same_image(name, tag) for tag in entry.tags or ())
    ]
    # One image may be listed several times, by other names.
    by_config = {entry.config: entry for entry in wanted}
    return sole(list(by_config.values()), name, names, files.called)


def _config_digest(files: Files, file: str, body: bytes) -> str:
    found = hashlib.sha256(body).hexdigest()
    promised = _DIGEST_NAME.fullmatch(file)
    if promised is not None and promised[1] != found:
        raise ContentMismatchError(
            f"the config in {files.called} is not what its name promises: the archive was damaged; "
            "save the image again"
        )
    return f"sha256:{found}"


def _layer(files: Files, name: str, diff_id: str) -> SourceLayer:
    size = files.size(name)
    if size is None:
        raise ArchiveInvalidError(f"{files.called} does not hold {name}, a layer of its image")
    return SourceLayer(
        diff_id=diff_id, blob=None, size=size, open=partial(stream, files, name, size)
    )
