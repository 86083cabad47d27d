"""Small, valid recipes for tests of whoever passes them on."""

from shared.image.recipe import ImageConfig, Recipe, SourceDigests, Tables


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def small_recipe(image: str = "a", config: ImageConfig | None = None) -> Recipe:
    return Recipe(
        image_id=image * 64,
        size=8192,
        inodes=1,
        compression="zstd",
        block_size=131072,
        superblock="00" * 96,
        segments=(),
        tables=Tables(offset=4096, length=100, sha256="b" * 64),
        config=config or ImageConfig(),
        source=SourceDigests(
            reference=digest(image), manifest=digest(image), config=digest(image), layers=()
        ),
    )
