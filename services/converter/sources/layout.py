"""An OCI image layout, in a directory or an archive: index.json leads to everything by digests."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pydantic import Field, ValidationError

from services.converter.registry.documents import (
    DOCKER_LIST,
    MAX_CONFIG,
    MAX_MANIFEST,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    Offer,
    ParsedConfig,
    check_fits,
    not_offered,
    parse_config,
    parse_document,
)
from services.converter.registry.errors import (
    ContentMismatchError,
    RegistryError,
    UnsupportedImageError,
)
from services.converter.registry.platforms import Platform, best_of
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.sources.files import Files, needed_document, read_document, stream
from services.converter.sources.interface import SourceImage, SourceLayer
from services.converter.sources.naming import same_image, sole
from shared.image.recipe import SourceDigests
from shared.models import Digest, Tolerant

INDEX: Final = "index.json"
MARK: Final = "oci-layout"

MAX_MARK: Final = 64 << 10
# Indexes may hold indexes; nobody honest needs more.
MAX_DEPTH: Final = 4
MAX_DOCUMENTS: Final = 256

_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
# How an image is called: the second is containerd's and Docker's, and is the whole reference.
_NAMES: Final = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


class _Mark(Tolerant):
    version: str = Field(alias="imageLayoutVersion", max_length=32)


def resolve(files: Files, name: str | None, platform: Platform) -> SourceImage:
    """The image of that name, or the only one there is, for that platform. Blocks."""
    _check_mark(files)
    index = parse_document(needed_document(files, INDEX, MAX_MANIFEST), OCI_INDEX, files.called)
    if not isinstance(index, Index):
        raise ArchiveInvalidError(f"{INDEX} in {files.called} is not an index of images")
    layout = _Layout(files)
    group = _group(index, name, files.called)
    reference, leaf = layout.choose(group, platform)
    manifest, config = layout.image(leaf)
    check_fits(config, len(manifest.layers), platform, files.called)
    return SourceImage(
        called=files.called,
        config=config.run,
        digests=SourceDigests(
            reference=reference,
            manifest=leaf.digest,
            config=manifest.config.digest,
            layers=tuple(layer.digest for layer in manifest.layers),
        ),
        layers=tuple(
            layout.layer(layer, diff_id)
            for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        ),
    )


@dataclass(slots=True)
class _Layout:
    """Reads the layout's documents, of which there may be only so many."""

    files: Files
    read: int = 0
    images: dict[Digest, tuple[Manifest, ParsedConfig]] = field(default_factory=dict)

    def choose(self, group: list[Offer], platform: Platform) -> tuple[Digest, Offer]:
        """The manifest to take, and what of the top index led to it."""
        leaves = [(top, leaf) for top in group for leaf in self._leaves(top, MAX_DEPTH)]
        if len(leaves) == 1:
            [(top, leaf)] = leaves
            return top.digest, leaf
        offered = [self._platform(leaf) for _, leaf in leaves]
        best = best_of(offered, platform)
        if best is None:
            raise not_offered(offered, platform, self.files.called)
        top, leaf = leaves[best]
        return top.digest, leaf

    def image(self, leaf: Descriptor) -> tuple[Manifest, ParsedConfig]:
        if leaf.digest not in self.images:
            manifest = self._document(leaf)
            if isinstance(manifest, Index):
                raise ArchiveInvalidError(f"{self.files.called} calls an index a manifest")
            body = self._verified(manifest.config, MAX_CONFIG)
            self.images[leaf.digest] = (manifest, parse_config(body, self.files.called))
        return self.images[leaf.digest]

    def layer(self, layer: Descriptor, diff_id: Digest) -> SourceLayer:
        blob = _blob(layer.digest)
        size = self.files.size(blob)
        if size is None:
            raise ArchiveInvalidError(
                f"{self.files.called} does not hold {blob}, a layer of its image: "
                "copy the image again, with all of its layers"
            )
        if size != layer.size:
            raise self._mismatch(blob)
        return SourceLayer(
            diff_id=diff_id,
            blob=layer.digest,
            size=size,
            open=partial(stream, self.files, blob, size),
        )

    def _leaves(self, offer: Offer, depth: int) -> Iterator[Offer]:
        if offer.media_type not in _INDEXES:
            yield offer
            return
        document = self._document(offer)
        if not isinstance(document, Index) or not depth:
            raise ArchiveInvalidError(
                f"{self.files.called} has indexes within indexes, more than {MAX_DEPTH} deep"
            )
        for inner in document.manifests:
            yield from self._leaves(inner, depth - 1)

    def _platform(self, leaf: Offer) -> Platform:
        """What a manifest is for; where its index does not say so, its config does."""
        if leaf.runs_on is not None:
            return leaf.runs_on
        try:
            _, config = self.image(leaf)
        except UnsupportedImageError:  # a signature, say, which lies beside the image
            return Platform("", "")
        return config.platform or Platform("", "")

    def _document(self, offer: Descriptor) -> Manifest | Index:
        body = self._verified(offer, MAX_MANIFEST)
        return parse_document(body, offer.media_type, self.files.called)

    def _verified(self, descriptor: Descriptor, limit: int) -> bytes:
        self.read += 1
        if self.read > MAX_DOCUMENTS:
            raise ArchiveInvalidError(
                f"{self.files.called} holds more than {MAX_DOCUMENTS} manifests and configs: "
                "name the image, or copy it to a layout of its own"
            )
        name = _blob(descriptor.digest)
        body = needed_document(self.files, name, limit)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if (digest, len(body)) != (descriptor.digest, descriptor.size):
            raise self._mismatch(name)
        return body

    def _mismatch(self, name: str) -> RegistryError:
        return ContentMismatchError(
            f"{name} in {self.files.called} is not what its digest promises: it was damaged; "
            "copy the image again"
        )


def _blob(digest: Digest) -> str:
    return "blobs/" + digest.replace(":", "/")


def _check_mark(files: Files) -> None:
    body = read_document(files, MARK, MAX_MARK)
    if body is None:
        raise ArchiveInvalidError(f"{files.called} is no OCI image layout: it has no {MARK}")
    try:
        version = _Mark.model_validate_json(body).version
    except ValidationError:
        version = ""
    if version.partition(".")[0] != "1":
        raise ArchiveInvalidError(
            f"{files.called} is an OCI image layout of a version that is not known here, not 1.x"
        )


def _group(index: Index, name: str | None, called: str) -> list[Offer]:
    """The entries that are one image: all platforms of it may stand side by side."""
    groups: dict[str | None, dict[Digest, Offer]] = {}
    names: set[str] = set()
    for offer in index.manifests:
        known_as = [(offer.annotations or {}).get(key) for key in _NAMES]
        names.update(known for known in known_as if known)
        if name is None:
            group = known_as[0] or known_as[1]
        elif any(known and same_image(name, known) for known in known_as):
            group = name
        else:
            continue
        groups.setdefault(group, {})[offer.digest] = offer
    # One image under several names is one image.
    different = {frozenset(group): list(group.values()) for group in groups.values()}
    return sole(list(different.values()), name, sorted(names), called)
