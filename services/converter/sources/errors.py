"""What can be wrong with an image in a file."""

from shared.errors import InvalidInputError


class ArchiveNotFoundError(InvalidInputError):
    """There is no such file, or it may not be read."""

    code = "archive_not_found"
    status = 404


class ArchiveInvalidError(InvalidInputError):
    """The file or directory holds no image, or a damaged one."""

    code = "archive_invalid"
    status = 422


class ArchiveTooLargeError(InvalidInputError):
    """The archive exceeds the limits that keep a hostile one from filling disk or memory."""

    code = "archive_too_large"
    status = 413


class ImageNotInArchiveError(InvalidInputError):
    """The archive holds images, but not the one that was named, or none was named of several."""

    code = "image_not_in_archive"
    status = 404
