"""What of an entry's attributes gets into an image: the options of the system decide."""

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import MAX_XATTR_LIST, MAX_XATTR_NAME, MAX_XATTR_VALUE
from services.converter.packing.tar_reader import Member
from shared.image import kinds
from shared.image.kinds import XATTR_PREFIXES
from shared.image.packs.index import Xattrs
from shared.image.recipe import PackOptions

# File capabilities are as good as setuid: a prefix that happens to cover them is not enough.
_CAPABILITIES = b"security.capability"
# Linux knows these attributes of files and directories only.
_USER = b"user."
_USER_KINDS = frozenset((kinds.FILE, kinds.DIRECTORY))
_SET_ID_BITS = 0o6000
_OPEN_TO_ALL = 0o555
# All bits set mean "nobody in particular" to chown(), which then leaves what is new to root.
_NO_OWNER = 0xFFFFFFFF
_MAX_MAJOR = 0xFFF
_MAX_MINOR = 0xFFFFF


class Policy:
    """Applies `PackOptions` to members."""

    def __init__(self, options: PackOptions) -> None:
        self._options = options
        names = [name.encode() for name in options.xattrs]
        self._xattr_names = frozenset(names)
        self._xattr_prefixes = tuple(name for name in names if name.endswith(b"."))

    def mode(self, member: Member) -> int:
        if member.kind == kinds.SYMLINK:
            return 0o777
        mode = member.mode if self._options.keep_setuid else member.mode & ~_SET_ID_BITS
        if not member.path and not self._options.keep_owners:
            # Tools leave a private root behind, which Docker never shows; root's own, it would
            # lock every user out of the image.
            mode |= _OPEN_TO_ALL
        return mode

    def owner(self, number: int) -> int:
        if not self._options.keep_owners:
            return 0
        if not -(1 << 31) <= number <= _NO_OWNER:
            raise LayerInvalidError(f"a layer's tar has an entry owned by number {number}")
        number &= _NO_OWNER
        return 0 if number == _NO_OWNER else number

    def xattrs(self, member: Member) -> Xattrs:
        wanted = tuple(
            sorted(
                pair
                for pair in member.xattrs
                if self._wanted(*pair)
                and (member.kind in _USER_KINDS or not pair[0].startswith(_USER))
            )
        )
        if sum(len(name) + 1 for name, _ in wanted) > MAX_XATTR_LIST:
            raise LayerInvalidError("a layer's tar has an entry with too many extended attributes")
        return wanted

    def device(self, member: Member) -> int | None:
        """As squashfs writes it; None where devices are not allowed."""
        if not self._options.keep_devices:
            return None
        major, minor = member.device
        if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
            raise LayerInvalidError(f"a layer's tar has the device number {major}:{minor}")
        return major << 8 | minor & 0xFF | (minor & ~0xFF) << 12

    def _wanted(self, name: bytes, value: bytes) -> bool:
        wanted = name in self._xattr_names or (
            name != _CAPABILITIES and name.startswith(self._xattr_prefixes)
        )
        if wanted and not (len(name) <= MAX_XATTR_NAME and len(value) <= MAX_XATTR_VALUE):
            message = f"a layer's tar has an extended attribute that is too long: {name[:60]!r}"
            raise LayerInvalidError(message)
        return wanted and name not in XATTR_PREFIXES
