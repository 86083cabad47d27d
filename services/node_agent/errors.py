"""What can go wrong on a node."""

from shared.errors import DrayError, NotFoundError


class ImageNotPlacedError(NotFoundError):
    """The image's file is not in the image directory that this node sees."""

    code = "image_not_placed"


class SidecarUnreadableError(DrayError):
    """The small file beside an image does not say what the image is."""

    code = "sidecar_unreadable"


class ImageNotMountableError(DrayError):
    """The image is there, but this node's mounter cannot read it."""

    code = "image_not_mountable"
    status = 422


class MountFailedError(DrayError):
    """The kernel or squashfuse refused a mount."""

    code = "mount_failed"


class MounterUnavailableError(DrayError):
    """This way of mounting cannot work for this user on this machine."""

    code = "mounter_unavailable"


class JobEndedError(DrayError):
    """The job was released while its image was being mounted."""

    code = "job_ended"
    status = 409


class ForbiddenError(DrayError):
    """The job belongs to somebody else."""

    code = "forbidden"
    status = 403


class JobNotTiedError(DrayError):
    """A job that is there already was to be tied to another process."""

    code = "job_not_tied"
    status = 409


class CacheOffError(DrayError):
    """This node keeps no copies of images."""

    code = "cache_off"
    status = 409


class CallerUnseenError(DrayError):
    """The agent cannot see when the caller's process ends."""

    code = "caller_unseen"
    status = 422


class TooManyJobsError(DrayError):
    """One user holds more jobs on this node than anybody needs."""

    code = "too_many_jobs"
    status = 429


class InsideRefusedError(DrayError):
    """The inside of an image cannot be had as the job wants it."""

    code = "inside_refused"
    status = 422


class ElfError(DrayError):
    """A file is not what loaders and programs are made of."""

    code = "not_elf"
    status = 422
