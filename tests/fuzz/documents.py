"""JSON of registries, and of our own files: manifests, configs, recipes."""

from typing import Final

from pydantic import ValidationError
from yarl import URL

from services.converter.registry.auth import MAX_LIFETIME, _read_token, _TokenService
from services.converter.registry.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_LAYERS,
    MAX_RUN_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    check_fits,
    layer_compression,
    not_offered,
    parse_config,
    parse_document,
)
from services.converter.registry.errors import (
    ImageLimitError,
    PlatformNotFoundError,
    RegistryProtocolError,
    UnsupportedImageError,
)
from services.converter.registry.platforms import Platform, best_of
from shared.image.recipe import ImageLayer, Recipe, Segment
from tests.fuzz.target import Target
from tests.support.recipes import digest, small_recipe

_SERVICE: Final = _TokenService(URL("https://auth.example.org/token"), None)
_CALLED: Final = "h.example.org/a:1"
_HERE: Final = Platform("linux", "amd64")
_TYPES: Final = ("", OCI_MANIFEST, OCI_INDEX + "; charset=utf-8", DOCKER_MANIFEST, DOCKER_LIST)
_SHA: Final = b"sha256:" + b"5" * 64


def _manifest(data: bytes) -> None:
    for content_type in _TYPES:
        try:
            found = parse_document(data, content_type, _CALLED)
        except (RegistryProtocolError, UnsupportedImageError, ImageLimitError):
            continue
        if isinstance(found, Manifest):
            assert 1 <= len(found.layers) <= MAX_LAYERS
            assert {layer_compression(layer) for layer in found.layers} <= {"none", "gzip", "zstd"}
            assert all(layer.digest.startswith("sha256:") for layer in found.layers)
            again = OCI_MANIFEST
        else:
            best = best_of(found.platforms(), _HERE)
            assert best is None or found.platforms()[best].suits(_HERE)
            assert len(not_offered(found.platforms(), _HERE, _CALLED).message) < 2000
            again = OCI_INDEX
        body = found.model_dump_json(by_alias=True).encode()
        assert parse_document(body, again, _CALLED) == found


def _config(data: bytes) -> None:
    try:
        found = parse_config(data, _CALLED)
        check_fits(found, 1, _HERE, _CALLED)
    except (RegistryProtocolError, ImageLimitError, PlatformNotFoundError):
        return
    assert len(found.run.model_dump_json()) <= MAX_RUN_CONFIG
    assert all(entry.find("=") > 0 and "\0" not in entry for entry in found.run.env)
    assert not any("\0" in word for word in (*found.run.entrypoint, *found.run.cmd))


def _token(data: bytes) -> None:
    """What a token server answers; its text becomes a header."""
    try:
        found = _read_token(_SERVICE, data, 1000.0)
    except RegistryProtocolError:
        return
    assert found.authorization.isascii()
    assert found.authorization.isprintable()
    assert 1000.0 <= found.usable_until <= 1000.0 + MAX_LIFETIME


def _recipe(data: bytes) -> None:
    try:
        found = Recipe.model_validate_json(data)
    except ValidationError:
        return
    end = 0
    for region in found.regions:
        assert end <= region.offset
        end = region.offset + region.length
    assert end <= found.size
    assert len(found.content_digest) == 64
    again = Recipe.model_validate_json(found.model_dump_json())
    assert (again, again.content_digest) == (found, found.content_digest)


def _descriptor(media_type: str, size: int = 3) -> bytes:
    return b'{"mediaType":"%s","digest":"%s","size":%d}' % (media_type.encode(), _SHA, size)


def _manifests() -> list[bytes]:
    config = _descriptor("application/vnd.oci.image.config.v1+json")
    layer = _descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 1 << 20)
    plain = _descriptor("application/vnd.docker.image.rootfs.diff.tar")
    offer = _descriptor(OCI_MANIFEST)[:-1]
    platforms = (
        b',"platform":{"os":"linux","architecture":"amd64"}}',
        b',"platform":{"os":"linux","architecture":"arm64","variant":"v8"},"annotations":{"a":"b"}}',
    )
    offers = b",".join(offer + platform for platform in platforms)
    return [
        b'{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s,%s]}'
        % (OCI_MANIFEST.encode(), config, layer, plain),
        b'{"schemaVersion":2,"config":%s,"layers":[%s]}' % (config, layer),
        b'{"schemaVersion":2,"manifests":[%s]}' % offers,
        b'{"schemaVersion":1,"fsLayers":[]}',
    ]


def _configs() -> list[bytes]:
    return [
        b'{"architecture":"amd64","os":"linux","config":{"Env":["A=1","=x"],"Entrypoint":["/e"],'
        b'"Cmd":["c","d"],"WorkingDir":"/w","User":"u:g","Labels":{"k":"v"}},'
        b'"rootfs":{"type":"layers","diff_ids":["%s"]}}' % _SHA,
        b'{"architecture":"arm64","variant":"v8","config":null,"rootfs":{"diff_ids":[]}}',
    ]


def _recipes() -> list[bytes]:
    plain = small_recipe()
    pack, sha = "c" * 64, "d" * 64
    segment = Segment(pack=pack, offset=4096, length=1000, sha256=sha)
    whole = plain.model_copy(
        update={
            "size": 16384,
            "segments": (segment,),
            "tables": plain.tables.model_copy(update={"offset": 8192}),
            "layers": (ImageLayer(digest=digest("e"), pack=pack, length=1000, live=900),),
        }
    )
    return [each.model_dump_json().encode() for each in (plain, whole)]


_JSON: Final = (
    *(b'null true 0 -1 1e400 [] {} [[[[[[ {"a":{"a": "" \\u0000 \\ud800 \\u202e'.split()),
    *(b', : " { } [ ]'.split()),
    *(b"\xff", b"\xed\xa0\x80", b"9" * 400),
)

TARGETS: Final = {
    "manifest": Target(
        _manifest,
        _manifests,
        words=(*_JSON, *(each.encode() for each in _TYPES), _SHA, b".foreign", b'"layers":[]'),
        largest=8192,
        examples=60,
    ),
    "config": Target(
        _config,
        _configs,
        words=(*_JSON, b'"Env"', b'"Labels"', b'"config"', b'"diff_ids"', b'"amd64"', _SHA),
        examples=60,
    ),
    "token": Target(
        _token,
        lambda: [b'{"token":"eyJ.a_b-c","expires_in":300}', b'{"access_token":"x","token":""}'],
        words=(*_JSON, b"\\n", b"\\u0000", b'"expires_in":'),
        largest=600,
    ),
    "recipe": Target(
        _recipe,
        _recipes,
        words=(*_JSON, b'"segments"', b'"tables"', b'"offset":', b'"length":', b'"size":', _SHA),
        largest=8192,
    ),
}
