"""All targets by their names."""

from typing import Final

from tests.fuzz import archives, documents, node, squash, tars, texts
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    **texts.TARGETS,
    **documents.TARGETS,
    **tars.TARGETS,
    **squash.TARGETS,
    **archives.TARGETS,
    **node.TARGETS,
}
