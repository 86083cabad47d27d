"""No mount at all: the image is extracted into a directory. Slow, but it always works."""

from importlib.util import find_spec
from pathlib import Path

from services.node_agent.errors import MountFailedError
from services.node_agent.mounter import How, Source
from services.node_agent.unmount import remove_tree
from shared.image.reading.extract import extract
from shared.logging import get_logger

log = get_logger(__name__)


class UnpackMounter:
    """Extracts with our own reader; needs neither privileges nor a kernel module."""

    how: How = "unpack"

    def __init__(self) -> None:
        zstd = {"zstd"} if find_spec("zstandard") else set[str]()
        self.codecs = frozenset({"gzip"} | zstd)

    def mount(self, image: Source, target: Path) -> None:
        log.warning(
            "unpacking_instead_of_mounting",
            image=image.path.name,
            hint="run the agent as root, or install squashfuse and fuse3 to mount images in place",
        )
        partial = target.with_name(f"{target.name}.partial")
        remove_tree(partial)
        try:
            extract(image.path, partial)
            target.rmdir()
            partial.rename(target)
        except OSError as exc:
            remove_tree(partial)
            where = f"{image.path.name} into {target.parent}"
            raise MountFailedError(f"cannot unpack {where}: {exc.strerror}") from exc
        except BaseException:
            remove_tree(partial)
            raise
