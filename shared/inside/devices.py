"""The variables by which a scheduler tells a job which devices of a node are its own.

A hook of the scheduler reads them, the node's agent is told, and modules go by them.
"""

from typing import Final

OF_NODE: Final = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Numbers as the node counts, whatever the cgroup lets a process see. A step has its own; a job's
may have come along from another node."""
OF_VENDOR: Final = {
    "nvidia.com": "CUDA_VISIBLE_DEVICES",
    "amd.com": "ROCR_VISIBLE_DEVICES",
}
VARIABLES: Final = (*OF_NODE, *OF_VENDOR.values())
