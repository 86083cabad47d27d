"""The recipe in an image's sidecar: what the image's bytes must be, and what it wants to run."""

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from services.node_agent.errors import SidecarUnreadableError
from shared.image.recipe import Recipe
from shared.models import ImageId, Tolerant

_MOST_BYTES: Final = 8 << 20


class _Sidecar(Tolerant):
    recipe: Recipe


def read_recipe(sidecar: Path, image_id: ImageId) -> Recipe:
    """Nobody has checked yet that it is true; SidecarUnreadableError. Blocks."""
    try:
        with sidecar.open("rb") as file:
            recipe = _Sidecar.model_validate_json(file.read(_MOST_BYTES)).recipe
    except (OSError, ValidationError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it holds no recipe"
        raise SidecarUnreadableError(
            f"{sidecar.name} does not say what the image is ({why}): pull the image again"
        ) from exc
    if recipe.image_id != image_id:
        raise SidecarUnreadableError(
            f"{sidecar.name} tells of another image, {recipe.image_id}: pull the image again"
        )
    return recipe
