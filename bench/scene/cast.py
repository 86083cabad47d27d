"""Who and what appears: users, image names, and reasons why a pull fails. All made up."""

from dataclasses import dataclass
from typing import Final

SYSTEM: Final = "cluster"
SECOND_SYSTEM: Final = "gpu"
REGISTRY: Final = "registry.example.org"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who pulls images and runs jobs."""

    name: str
    uid: int


USERS: Final = tuple(
    User(name, 1001 + number)
    for number, name in enumerate(
        (
            "ada",
            "grace",
            "emmy",
            "alan",
            "katherine",
            "edsger",
            "rosalind",
            "kurt",
            "hedy",
            "sophie",
        )
    )
)
OWNER: Final = USERS[0]
"""Who has private images, and a token."""
FAMILIES: Final = {
    "base/ubuntu": (78, 12),
    "base/rocky": (95, 30),
    "cuda/runtime": (78, 12, 640, 1210, 4),
    "cuda/devel": (78, 12, 640, 1210, 4, 2870),
    "rocm/devel": (78, 12, 5400, 310),
    "mpi/gcc": (95, 30, 410, 66),
    "python/science": (78, 12, 220, 540),
}
"""Base images, by the MiB of their layers: what begins alike is the same layers."""
APPLICATIONS: Final = (
    ("ml/pytorch", "cuda/devel"),
    ("ml/jax", "cuda/runtime"),
    ("ml/inference", "cuda/runtime"),
    ("climate/icon", "mpi/gcc"),
    ("climate/nemo", "mpi/gcc"),
    ("chem/gromacs", "cuda/runtime"),
    ("chem/cp2k", "mpi/gcc"),
    ("chem/lammps", "rocm/devel"),
    ("astro/gadget", "mpi/gcc"),
    ("astro/lofar-imaging", "python/science"),
    ("bio/alphafold", "cuda/runtime"),
    ("bio/nextflow-genomics", "base/ubuntu"),
    ("hep/root", "base/rocky"),
    ("hep/geant4", "base/rocky"),
    ("tools/jupyter", "python/science"),
    ("tools/paraview", "base/ubuntu"),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A reference that cannot be pulled, and what is said of it."""

    reference: str
    code: str
    message: str
    retryable: bool = False


TROUBLES: Final = (
    Trouble(
        f"{REGISTRY}/ml/pytorch:2.9-nightly",
        "image_not_found",
        f"{REGISTRY} has no image ml/pytorch:2.9-nightly: check the name and the tag",
    ),
    Trouble(
        f"{REGISTRY}/chem/vasp:6.5",
        "registry_access_refused",
        f"{REGISTRY} does not give chem/vasp:6.5 without a login: run `dray login {REGISTRY}`",
    ),
    Trouble(
        f"{REGISTRY}/bio/alphafold:3.1",
        "layer_digest_mismatch",
        "layer 7 of 9 is not what its digest says, three times over: ask whoever pushed it",
    ),
    Trouble(
        f"{REGISTRY}/hep/root:<img src=x onerror=alert(1)>",
        "image_not_found",
        "<script>alert('pulled')</script> <b>is not</b> known to this registry &amp; never was",
    ),
    Trouble(
        f"{REGISTRY}/climate/icon:2026.10-rc3",
        "registry_unavailable",
        f"{REGISTRY} answers with 503 Service Unavailable; tried 2 times, and again soon",
        retryable=True,
    ),
)
WAITING: Final = {
    f"{REGISTRY}/astro/gadget:5.0-dev": f"{REGISTRY} asks to come back in 45 s (429)",
    f"{REGISTRY}/tools/jupyter:nightly": "another pull reads the same layer",
}
"""References whose pull waits for somebody else, and for whom."""
