"""What can go wrong with somebody else's files, besides what is wrong with them."""

from shared.errors import DrayError


class NotAsThisUserError(DrayError):
    """This converter cannot, or must not, read files with the rights of that user."""

    code = "not_as_this_user"
    status = 403


class PlaceNotAllowedError(DrayError):
    """Files are not imported from there."""

    code = "import_place_not_allowed"
    status = 403


class FilesHangError(DrayError):
    """A file system did not answer in time."""

    code = "file_system_hangs"
    status = 503
    retryable = True


class UserProcessDiedError(DrayError):
    """The process that had the user's rights is gone."""

    code = "user_process_died"
    status = 503
    retryable = True
