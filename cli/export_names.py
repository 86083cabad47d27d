"""What an exported file is called, and how an image is called in an OCI layout."""

import re
from typing import Final

from cli.oci.layout import FULL_NAME, REF_NAME
from shared.errors import InvalidReferenceError
from shared.imported import ImportedName, is_imported, parse_imported
from shared.reference import ImageReference, parse_reference

_SHORT_DIGEST: Final = 12
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9_.-]")


def file_name(reference: str, ending: str) -> str:
    """`solver-2.1.squashfs` for host/group/solver:2.1."""
    named = _parsed(reference)
    path = named.name.rpartition("/")[2]
    digest = (named.digest or "").removeprefix("sha256:")[:_SHORT_DIGEST]
    return _UNUSUAL.sub("_", f"{path}-{named.tag or digest}{ending}")


def annotations(reference: str) -> dict[str, str]:
    """As containerd, Docker, podman and skopeo look for names; what has only a digest has none."""
    named = _parsed(reference)
    if named.tag is None:
        return {}
    found = {REF_NAME: named.tag}
    if isinstance(named, ImageReference):
        return found | {FULL_NAME: f"{named.name}:{named.tag}"}
    try:
        # Others have no name for what came from no registry but this, and no capitals in it.
        full = parse_reference(f"localhost/{named.name}:{named.tag}")
    except InvalidReferenceError:
        return found
    return found | {FULL_NAME: str(full)}


def _parsed(reference: str) -> ImageReference | ImportedName:
    return parse_imported(reference) if is_imported(reference) else parse_reference(reference)
