"""The inside of a job's image, on the local socket of its node's agent."""

from typing import Annotated

from pydantic import Field, StringConstraints

from shared.models import ImageId, Strict, Tolerant

DeviceVariable = Annotated[
    str,
    StringConstraints(
        pattern=r"^(SLURM_STEP_GPUS|SLURM_JOB_GPUS|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES)$"
    ),
]
"""What a scheduler says of a job's devices on a node."""
VolumeText = Annotated[str, StringConstraints(min_length=1, max_length=16384)]
ModuleText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Volumes = Annotated[tuple[VolumeText, ...], Field(max_length=64)]
DeviceVariables = Annotated[
    dict[DeviceVariable, Annotated[str, StringConstraints(max_length=4096)]],
    Field(max_length=4),
]
Modules = Annotated[tuple[ModuleText, ...], Field(max_length=32)]


class InsideRequest(Strict):
    """POST /v1/jobs/{job_id}/insides: put an image that the job has together, as the user wants."""

    image_id: ImageId
    volumes: Volumes = ()
    modules: Modules = ()
    wait: Annotated[float, Field(gt=0, le=3600)] = 60.0


class InsideView(Tolerant):
    """Where it is: a directory with its namespaces, and with what the image says of itself."""

    image_id: ImageId
    path: str
