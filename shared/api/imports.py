"""Imports: images made of files."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shared.api.images import Named
from shared.formats import MAX_PATH, Format
from shared.models import Strict, SystemName

ImportPath = Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=MAX_PATH)]


class ImportRequest(Strict):
    """POST /imports. Without a system the site's only one is meant.

    `path` is absolute, and as the converters' machines see it; it is opened with the rights of who
    asks. `image` says which one, of a file that holds several. The image is private, and for
    whom `allowed_uids` and `allowed_gids` name besides, unless it is made `public`.
    """

    name: Annotated[str, Field(min_length=1, max_length=512)]
    path: ImportPath
    format: Literal["auto"] | Format = "auto"
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    system: SystemName | None = None
    public: bool = False
    force: bool = False
    allowed_uids: Named | None = None
    allowed_gids: Named | None = None
