"""Why an image has no copy on this node. None of it keeps a job from starting."""

from shared.errors import DrayError


class CacheUnusableError(DrayError):
    """The cache's directory cannot be used, or may be somebody else's."""

    code = "cache_unusable"


class CacheFullError(DrayError):
    """What is in the cache is in use or pinned, and there is no room beside it."""

    code = "cache_full"


class CopyUncertainError(DrayError):
    """Nobody who is to be trusted says what the copy's bytes must be."""

    code = "copy_uncertain"


class CopyFailedError(DrayError):
    """The shared directory or the cache's disk failed in the middle of a copy."""

    code = "copy_failed"
