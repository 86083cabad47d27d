"""The inside of a job's image, on the local socket of its node's agent."""

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.inside import module_names
from shared.inside.devices import VARIABLES
from shared.models import ImageId, Strict, Tolerant

DeviceVariable = Annotated[str, StringConstraints(pattern=rf"^({'|'.join(VARIABLES)})$")]
"""What a scheduler says of a job's devices on a node."""
VolumeText = Annotated[str, StringConstraints(min_length=1, max_length=16384)]
ModuleText = Annotated[str, StringConstraints(pattern=rf"^{module_names.PATTERN}$")]
Volumes = Annotated[tuple[VolumeText, ...], Field(max_length=64)]
DeviceVariables = Annotated[
    dict[DeviceVariable, Annotated[str, StringConstraints(max_length=4096)]],
    Field(max_length=len(VARIABLES)),
]
Modules = Annotated[tuple[ModuleText, ...], Field(max_length=32)]


class InsideRequest(Strict):
    """POST /v1/jobs/{job_id}/insides: put an image that the job has together, as the user wants."""

    image_id: ImageId
    volumes: Volumes = ()
    modules: Modules = ()
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0


class SiteView(Tolerant):
    """GET /v1/site: what the site has in each image, for who puts one together without root."""

    site_fs: tuple[str, ...] = ()
    tmp_size: str = "50%"
    changes: tuple[str, ...] = ()
    """To the environment; see `shared.inside.manifest`."""
    modules: tuple[str, ...] = ()
    """Which jobs have unless they say otherwise, by name: they take an agent that is root."""


class InsideView(Tolerant):
    """Where it is: a directory with its namespaces, and with what the image says of itself."""

    image_id: ImageId
    path: str
