"""A node with a root agent, a user with a job on it, and the commands that enter images."""

import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cli import job_images
from cli.agent import Agent, PinnedImage, Whose
from services.distributor.sidecars import Sidecar
from shared.image.recipe import ImageConfig
from tests.support.agents import PATIENCE, Place
from tests.support.cached import Made, make_image
from tests.support.scripted_gateway import Script
from tests.support.squashfs import PlacedImage, mounts_in, system_tree
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python

DRAY = "from cli.main import main; main()"
SHIFTER = "from cli.shifter.main import main; main()"
_NOT_INHERITED = ("DRAY_", "SHIFTER", "SLURM_")


@dataclass
class RunPlace(Place):
    """A node whose site has something to say of what is inside."""

    inside: Mapping[str, Any] = field(default_factory=dict)

    def document(self, mount: str) -> dict[str, Any]:
        return {**super().document(mount), "inside": dict(self.inside)}


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Login:
    """An ordinary user on a node, with an environment; perhaps in a job."""

    socket: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | str = "/"

    def having(self, **env: str) -> "Login":
        return replace(self, env={**self.env, **env})

    @property
    def environment(self) -> dict[str, str]:
        inherited = ordinary_environment().items()
        own = {name: value for name, value in inherited if not name.startswith(_NOT_INHERITED)}
        return own | {"DRAY_SOCKET": str(self.socket), "DRAY_URL": "http://127.0.0.1:1", **self.env}

    def start(self, program: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | options
        return subprocess.Popen(
            [ordinary_python(), "-c", program, *arguments],
            env=self.environment,
            cwd=self.cwd,
            stderr=subprocess.PIPE,
            text=True,
            **{**AS_NOBODY, **streams},
        )

    def run(self, program: str, *arguments: str, stdin: str | None = None, **options: Any) -> Ran:
        if stdin is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(program, *arguments, **options)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return Ran(process.returncode, out, err)

    def dray(self, *arguments: str, **options: Any) -> Ran:
        return self.run(DRAY, "run", *arguments, **options)

    def shifter(self, *arguments: str, **options: Any) -> Ran:
        return self.run(SHIFTER, *arguments, **options)


def shell_image(place: Place, name: str, config: ImageConfig) -> Made:
    """One in which a shell runs, and which says in /greeting who it is."""
    tree = place.root / "trees" / "system"
    if not tree.exists():
        system_tree(tree)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(tree.rglob("*")):
            tar.add(path, str(path.relative_to(tree)), recursive=False)
    image = make_image(place, [packed.getvalue()], greeting=f"{name}\n")
    sidecar = Sidecar.model_validate_json(image.sidecar.read_bytes())
    described = sidecar.recipe.model_copy(update={"config": config})
    image.sidecar.write_text(Sidecar(recipe=described).model_dump_json())
    return image


def pinned(image: PlacedImage) -> PinnedImage:
    return PinnedImage(image.image_id, image.content_digest, image.size)


def begin_job(place: Place, job: str, images: Mapping[str, PlacedImage], **wants: Any) -> Login:
    """As prolog and plugin do; what the user has in their environment then."""
    whose = Whose(uid=AS_NOBODY["user"], gid=AS_NOBODY["group"], **wants)
    known = [pinned(image) for image in images.values()]
    prepared = Agent(place.socket).prepare(job, known, whose, PATIENCE)
    assert prepared.ready, prepared.message
    return Login(
        place.socket,
        {
            "SLURM_JOB_ID": job,
            job_images.IMAGE: ",".join(images),
            job_images.IMAGE_ID: known[0].image_id,
            job_images.IMAGES: job_images.written(known),
            job_images.VOLUMES: ";".join(wants.get("volumes", ())),
            job_images.MODULES: ",".join(wants.get("modules", ())),
        },
    )


def end_job(place: Place, job: str) -> None:
    Agent(place.socket).release(job, PATIENCE)


@dataclass
class Node:
    """A node; its user's own directories; what is in its image directory."""

    place: RunPlace
    own: Path
    site: Path
    solver: Made
    plain: Made
    url: str
    gateway: Script

    @property
    def login(self) -> Login:
        """Somebody ordinary, in no job."""
        return Login(self.place.socket, {"DRAY_URL": self.url})

    @contextmanager
    def job(self, **wants: Any) -> Iterator[Login]:
        """One with both images."""
        images = {"solver:1": self.solver, "docker:plain:2": self.plain}
        try:
            yield begin_job(self.place, "7", images, **wants)
        finally:
            end_job(self.place, "7")
            left = mounts_in(self.place.root)
            assert [found for found in left if "/insides/" in found] == []

    def directory(self, name: str) -> Path:
        """One of the user's, with a file that says its name."""
        made = self.own / name
        made.mkdir(exist_ok=True)
        (made / "name").write_text(f"{name}\n")
        for path in (made, made / "name"):
            path.chmod(0o777)
        return made
