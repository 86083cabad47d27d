"""What of an entry's attributes gets into an image: the options of the system decide."""

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import MAX_XATTR_LIST, MAX_XATTR_NAME, MAX_XATTR_VALUE
from services.converter.packing.tar_reader import Member
from shared.image import kinds
from shared.image.kinds import XATTR_PREFIXES
from shared.image.pack_index import Xattrs
from shared.image.recipe import PackOptions

# File capabilities are as good as setuid: a prefix that happens to cover them is not enough.
_CAPABILITIES = b"security.capability"
_SET_ID_BITS = 0o6000
_MAX_OWNER = 0xFFFFFFFE
_MAX_MAJOR = 0xFFF
_MAX_MINOR = 0xFFFFF


class Policy:
    """Applies `PackOptions` to members."""

    def __init__(self, options: PackOptions) -> None:
        self._options = options
        self._prefixes = tuple(prefix.encode() for prefix in options.xattr_prefixes)

    def mode(self, member: Member) -> int:
        if member.kind == kinds.SYMLINK:
            return 0o777
        return member.mode if self._options.keep_setuid else member.mode & ~_SET_ID_BITS

    def owner(self, number: int) -> int:
        if not self._options.keep_owners:
            return 0
        if not 0 <= number <= _MAX_OWNER:
            raise LayerInvalidError(f"a layer's tar has an entry owned by number {number}")
        return number

    def xattrs(self, member: Member) -> Xattrs:
        wanted = tuple(sorted(pair for pair in member.xattrs if self._wanted(*pair)))
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
        if name == _CAPABILITIES:
            wanted = name in self._prefixes
        else:
            # Squashfs has no other name spaces, whatever a site lists.
            wanted = name.startswith(self._prefixes) and name.startswith(XATTR_PREFIXES)
        if wanted and not (len(name) <= MAX_XATTR_NAME and len(value) <= MAX_XATTR_VALUE):
            message = f"a layer's tar has an extended attribute that is too long: {name[:60]!r}"
            raise LayerInvalidError(message)
        return wanted and name not in XATTR_PREFIXES
