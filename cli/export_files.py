"""Files that an export reads and makes: they appear whole or not at all, and private ones are ours.

A partial file has the image's digest in its name, so that a later run goes on with its own image
and no other.
"""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from cli.download import Offer
from cli.errors import CliError, UsageError
from shared.files import publishing, remove_stale_partials_of, sync_directory

_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o666
_COPIED: Final = 64 << 20


class ExportFileError(CliError):
    """The file cannot be made."""

    code = "export_file"


def placed_file(offer: Offer) -> Path | None:
    """The image's own file, where this machine sees the system's file system, and we may read."""
    if offer.file is None:
        return None
    try:
        fd = os.open(offer.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    whole = stat.S_ISREG(found.st_mode) and found.st_size == offer.size
    return Path(offer.file) if whole else None


class Partial:
    """What has come of an image so far, beside the file that it becomes."""

    def __init__(self, target: Path, offer: Offer) -> None:
        self.path = target.with_name(f".{target.name}.{offer.content_digest[:16]}.part")
        self._private = offer.private
        with _telling(target):
            self._fd = _own(self.path)
        try:
            self._take(target)
            self.length = os.fstat(self._fd).st_size
            if self.length > offer.size:
                self.empty()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def empty(self) -> None:
        os.ftruncate(self._fd, 0)
        self.length = 0

    def append(self, piece: bytes) -> None:
        view = memoryview(piece)
        with _telling(self.path):
            while view:
                written = os.pwrite(self._fd, view, self.length)
                view = view[written:]
                self.length += written

    def copy(self, source: Path, report: Callable[[int], None]) -> None:
        """The rest of it, by the kernel: some file systems need not move a byte."""
        with source.open("rb") as file, _telling(self.path):
            while copied := self._copied(file.fileno()):
                self.length += copied
                report(self.length)

    def publish(self, target: Path, *, force: bool) -> None:
        with _telling(target):
            os.fchmod(self._fd, _mode(private=self._private))
            os.fsync(self._fd)
            if target.exists() and not force:
                raise UsageError(f"{target} appeared meanwhile, and is left alone")
            self.path.replace(target)
            sync_directory(target.parent)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def over(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """What was made of it is made, or cannot be; who was interrupted may come back."""
        if kind is not KeyboardInterrupt:
            self.remove()

    def _take(self, target: Path) -> None:
        """Of two runs at once only one may write; and what it made may be gone by then."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ExportFileError(
                f"another dray export makes {target} at this moment: wait for it, or name "
                "another file"
            ) from exc
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                return
        raise ExportFileError(f"another dray export has just made {target}")

    def _copied(self, source: int) -> int:
        try:
            return os.copy_file_range(source, self._fd, _COPIED, self.length, self.length)
        except OSError as exc:
            if exc.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
        piece = os.pread(source, 1 << 20, self.length)
        return os.pwrite(self._fd, piece, self.length) if piece else 0


def _own(path: Path) -> int:
    """A file of ours alone: its name can be guessed, and others may write to the directory."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with suppress(FileExistsError):
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, _PRIVATE)
    fd = os.open(path, flags)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
        return fd
    os.close(fd)
    raise ExportFileError(
        f"{path} is in the way, and is no file of yours alone: remove it, or name another place "
        "with -o"
    )


@contextmanager
def written_anew(target: Path, *, private: bool, force: bool) -> Iterator[BinaryIO]:
    """A file that takes its name when all is in it."""
    remove_stale_partials_of(target)
    with _telling(target), publishing(target) as file:
        os.fchmod(file.fileno(), _mode(private=private))
        yield file
        if target.exists() and not force:
            raise UsageError(f"{target} appeared meanwhile, and is left alone")


@contextmanager
def written_directory(target: Path, *, private: bool) -> Iterator[Path]:
    """The same of a directory, which is new or empty."""
    with _telling(target):
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            inside = made / target.name
            inside.mkdir()
            yield inside
            for path in (*inside.rglob("*"), inside):
                if path.is_dir():
                    sync_directory(path)
            inside.chmod(0o700 if private else 0o777 & ~_umask())
            inside.replace(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _mode(*, private: bool) -> int:
    """What others may not read in the site's directory they do not read here either."""
    return _PRIVATE if private else _PUBLIC & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def _telling(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ExportFileError(
            f"{target} cannot be written: {exc.strerror or exc}; name another place with -o"
        ) from exc
