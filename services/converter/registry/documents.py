"""Manifests, indexes and image configs as registries send them, with everything bounded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from services.converter.registry.errors import (
    ImageLimitError,
    PlatformNotFoundError,
    RegistryProtocolError,
    UnsupportedImageError,
)
from services.converter.registry.platforms import Platform
from shared.image.recipe import ImageConfig
from shared.models import Digest, Tolerant

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_CONFIG: Final = 8 * 1024 * 1024
MAX_LAYERS: Final = 127
MAX_BLOB: Final = 1 << 42
# The part of a config that travels on with the image, in events and sidecar files.
MAX_RUN_CONFIG: Final = 512 * 1024

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT: Final = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"

_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
Compression = Literal["none", "gzip", "zstd"]
_LAYERS: dict[str, Compression] = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}

_ShortText = Annotated[str, StringConstraints(max_length=255)]
_NoNul = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class Descriptor(Tolerant):
    """A pointer to a blob or manifest."""

    media_type: _ShortText = Field(alias="mediaType")
    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_BLOB)]


class _OfferedPlatform(Tolerant):
    os: _ShortText = ""
    architecture: _ShortText = ""
    variant: _ShortText | None = None


class Offer(Descriptor):
    """One of an index's entries. Only in a layout do annotations name it."""

    platform: _OfferedPlatform | None = None
    annotations: dict[str, str] | None = None

    @property
    def runs_on(self) -> Platform | None:
        """What it is for, where that is said."""
        found = self.platform
        if found is None:
            return None
        return Platform(found.os, found.architecture, found.variant or None)


class Manifest(Tolerant):
    """One image for one platform."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Field(max_length=1024)]


class Index(Tolerant):
    """One image for several platforms."""

    manifests: Annotated[tuple[Offer, ...], Field(max_length=1024)]

    def platforms(self) -> list[Platform]:
        """What is on offer, in the index's order."""
        return [offer.runs_on or Platform("", "") for offer in self.manifests]


class _Envelope(Tolerant):
    """What tells the kinds of documents apart."""

    schema_version: int | None = Field(default=None, alias="schemaVersion")
    media_type: _ShortText | None = Field(default=None, alias="mediaType")
    layers: object = None
    manifests: object = None


class _RunConfig(Tolerant):
    """The config's inner part; every key may be missing or null."""

    env: tuple[_NoNul, ...] | None = Field(default=None, alias="Env")
    entrypoint: tuple[_NoNul, ...] | None = Field(default=None, alias="Entrypoint")
    cmd: tuple[_NoNul, ...] | None = Field(default=None, alias="Cmd")
    workdir: _NoNul | None = Field(default=None, alias="WorkingDir")
    user: _NoNul | None = Field(default=None, alias="User")
    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _RootFs(Tolerant):
    diff_ids: Annotated[tuple[Digest, ...], Field(max_length=1024)]


class _ConfigFile(Tolerant):
    os: _ShortText = ""
    architecture: _ShortText = ""
    variant: _ShortText | None = None
    config: _RunConfig | None = None
    rootfs: _RootFs


@dataclass(frozen=True, slots=True)
class ParsedConfig:
    """What an image's config blob says."""

    run: ImageConfig
    diff_ids: tuple[Digest, ...]
    platform: Platform | None


def parse_document(body: bytes, content_type: str, called: str) -> Manifest | Index:
    """A manifest or an index; whatever else it may be is refused with a reason."""
    try:
        envelope = _Envelope.model_validate_json(body)
        kind = envelope.media_type or content_type.partition(";")[0].strip().lower()
        if envelope.schema_version == 1 or kind.startswith(
            "application/vnd.docker.distribution.manifest.v1"
        ):
            raise UnsupportedImageError(
                f"{called} is in the outdated manifest schema 1: push it again with a current tool"
            )
        if envelope.layers is not None and envelope.manifests is not None:
            raise RegistryProtocolError(f"{called} claims to be a manifest and an index at once")
        if kind in {OCI_INDEX, DOCKER_LIST}:
            return Index.model_validate_json(body)
        if kind in {OCI_MANIFEST, DOCKER_MANIFEST}:
            return _checked(Manifest.model_validate_json(body), called)
    except ValidationError as exc:
        raise _malformed(f"the manifest of {called}", exc) from None
    raise UnsupportedImageError(
        f"{called} is of type {kind[:100]!r}, which is not a container image's"
    )


def layer_compression(layer: Descriptor) -> Compression:
    """How a layer that parse_document accepted is compressed."""
    return _LAYERS[layer.media_type]


def parse_config(body: bytes, called: str) -> ParsedConfig:
    """The config blob of an image."""
    try:
        found = _ConfigFile.model_validate_json(body)
    except ValidationError as exc:
        raise _malformed(f"the config of {called}", exc) from None
    inner = found.config or _RunConfig()
    run = ImageConfig(
        # An entry without a name could not be set; Docker ignores it, too.
        env=tuple(entry for entry in inner.env or () if entry.find("=") > 0),
        entrypoint=inner.entrypoint or (),
        cmd=inner.cmd or (),
        workdir=inner.workdir or "",
        user=inner.user or "",
        labels=inner.labels or {},
    )
    if len(run.model_dump_json()) > MAX_RUN_CONFIG:
        raise ImageLimitError(
            f"the environment, command and labels of {called} are larger than "
            f"{MAX_RUN_CONFIG // 1024} KiB: remove labels or variables from the image"
        )
    named = bool(found.os and found.architecture)
    return ParsedConfig(
        run=run,
        diff_ids=found.rootfs.diff_ids,
        platform=Platform(found.os, found.architecture, found.variant or None) if named else None,
    )


def check_fits(config: ParsedConfig, layers: int, platform: Platform, called: str) -> None:
    """Refuse a config that describes other layers, or an image that the system cannot run."""
    if len(config.diff_ids) != layers:
        raise RegistryProtocolError(
            f"{called} has {layers} layers, but its config describes {len(config.diff_ids)}: "
            "tell whoever pushed it"
        )
    if config.platform is not None and not config.platform.suits(platform):
        raise PlatformNotFoundError(
            f"{called} is for {config.platform}, and this system needs {platform}"
        )


def check_count(layers: int, called: str) -> None:
    if not 1 <= layers <= MAX_LAYERS:
        raise ImageLimitError(
            f"{called} has {layers} layers, and 1 to {MAX_LAYERS} are possible: "
            "build it with fewer steps, or squash it"
        )


def not_offered(
    offered: Iterable[Platform], platform: Platform, called: str
) -> PlatformNotFoundError:
    """What to raise where none of an image's platforms suits the system."""
    # Attestations are listed as unknown/unknown: no platform anyone could want.
    names = sorted({str(offer)[:60] for offer in offered if offer.os not in {"", "unknown"}})
    available = ", ".join(names[:12]) or "no platform at all"
    return PlatformNotFoundError(f"{called} does not exist for {platform}, only for {available}")


def _checked(manifest: Manifest, called: str) -> Manifest:
    if manifest.config.media_type not in _CONFIGS:
        raise UnsupportedImageError(
            f"{called} is not a container image, but holds {manifest.config.media_type[:100]!r}"
        )
    if manifest.config.size > MAX_CONFIG:
        raise ImageLimitError(f"the config of {called} is larger than {MAX_CONFIG >> 20} MiB")
    check_count(len(manifest.layers), called)
    for layer in manifest.layers:
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise UnsupportedImageError(
                f"{called} has a foreign layer, which its registry does not hold: "
                "push the image with its non-distributable layers included"
            )
        if layer.media_type not in _LAYERS:
            raise UnsupportedImageError(
                f"{called} has a layer of type {layer.media_type[:100]!r}, which is not known here"
            )
    return manifest


def _malformed(what: str, exc: ValidationError) -> RegistryProtocolError:
    first = exc.errors(include_input=False, include_url=False)[0]
    place = _place(first["loc"])
    return RegistryProtocolError(
        f"{what} is not valid ({place}{first['msg'][:200]}): tell whoever pushed it"
    )


def _place(location: Sequence[int | str]) -> str:
    text = ".".join(str(part)[:40] for part in location[:6])
    return f"{text}: " if text else ""
