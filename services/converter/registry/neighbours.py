"""Which addresses a registry may send us to.

Whoever runs a registry chooses where its tokens and blobs are, and we go there from inside of the
site. Addresses of this machine and of its link answer only their neighbours, some with secrets.
"""

import asyncio
import ipaddress
import socket

from yarl import URL

from services.converter.registry.errors import RegistryProtocolError
from shared.deadline import Deadline


async def refuse_neighbours(
    origin: URL, target: URL, deadline: Deadline, *, by_proxy: bool = False
) -> None:
    """Raise where `origin` leads to this machine or its link, and is not there itself.

    Names that a proxy looks up for us need not mean anything here.
    """
    if target.host == origin.host:
        return
    if not _is_name(target.host or ""):
        raise RegistryProtocolError(
            f"{origin.host} leads to an address that no machine can have: tell the registry's "
            "administrator"
        )
    near = _is_near_by_itself(target) if by_proxy else await _is_near(target, deadline)
    if not near:
        return
    if not await _is_near(origin, deadline):
        raise RegistryProtocolError(
            f"{origin.host} leads to {target.host}, which is an address of this machine or its "
            "own link, and is refused: tell the registry's administrator"
        )


def _is_name(host: str) -> bool:
    """Whether it can be looked up at all: a label may be empty, or too long for one."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _is_near_by_itself(url: URL) -> bool:
    try:
        return _near(url.host or "")
    except ValueError:
        return url.host == "localhost"


async def _is_near(url: URL, deadline: Deadline) -> bool:
    loop = asyncio.get_running_loop()
    async with deadline.bound(f"looking up {url.host}"):
        try:
            found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except OSError:  # asking there will say what is wrong with it
            return False
    return any(_near(str(address[0])) for *_, address in found)


def _near(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_unspecified
