"""How an image's file lies on its system's file system, as that said when it was made."""

from typing import Annotated

from pydantic import Field

from shared.models import Bytes, Tolerant

_Text = Annotated[str, Field(max_length=512)]


class PlacedLayout(Tolerant):
    """Of a file on Lustre; what is None was not told. Other file systems have no layout."""

    stripes: Annotated[int, Field(ge=0)] | None = None
    """Of the widest component; each has its data on so many storage targets."""
    stripe_size: Bytes | None = None
    pool: _Text | None = None
    mirrors: Annotated[int, Field(ge=1)] = 1
    warmed: bool = False
    """Its servers were asked to read it into their memory."""
    fallback: _Text | None = None
    """Why it is not as the settings want it."""
