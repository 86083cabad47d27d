"""Images on what is taken for Lustre: a real file system, and a stand-in that records `lfs`."""

import threading
import time
from pathlib import Path

import pytest

from services.distributor import layouts
from services.distributor.placement import Placements, Terms, place_image
from services.distributor.sidecars import Sidecar
from services.distributor.space import Space
from services.gateway.work import placement_work
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import ImagePlaced, PlacementRequested
from shared.image.recipe import PackOptions
from shared.layout import PlacedLayout
from shared.linux import file_system_type
from shared.progress import Part
from shared.settings.layout import LayoutSettings
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.lfs import MIRRORED, FakeLfs
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of
from tests.support.transitions import MACHINE, NOW, in_transfer, taken


@pytest.fixture
def built(tmp_path: Path) -> Built:
    layers = [tar_of(("data", noise(2 << 20))), tar_of(("etc/name", b"upper"))]
    return build_image(layers, tmp_path / "made", PackOptions())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


def terms(lfs: FakeLfs | Path, **fields: object) -> Terms:
    program = lfs.path if isinstance(lfs, FakeLfs) else lfs
    given = {"file_system": "lustre", "lfs": str(program), **fields}
    return Terms(LayoutSettings.model_validate(given))


def place(built: Built, images: Path, wanted: Terms, *, hot: bool = False) -> PlacedLayout | None:
    whole = Part(total=built.recipe.size)
    return place_image(
        built.recipe, built.store, images, whole, threading.Event(), terms=wanted, hot=hot
    )


def check(built: Built, images: Path) -> Sidecar:
    """The image is there, whole, with its sidecars and nothing else."""
    image = images / f"{built.recipe.image_id}.squashfs"
    assert image.read_bytes() == built.path.read_bytes()
    assert len(list(images.iterdir())) == 3
    assert {path.stat().st_mode & 0o777 for path in images.iterdir()} == {0o644}
    return Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())


def outcomes(outcome: str) -> float:
    return float(layouts.LAYOUTS.labels(outcome)._value.get())


def test_the_file_is_made_with_its_layout_before_a_byte_is_written(
    built: Built, images: Path, tmp_path: Path
) -> None:
    lfs = FakeLfs(tmp_path / "bin")
    layout = place(built, images, terms(lfs, stripe_size=1 << 20, pool="flash"), hot=True)
    assert lfs.verbs == ["setstripe", "getstripe"]
    made, read = lfs.asked
    assert made.arguments[1:-1] == ["-c", "1", "-i", "-1", "-S", "1048576", "-p", "flash"]
    assert made.size is None, "it was not there before"
    assert read.size == 0
    assert made.arguments[-1] == read.arguments[-1]
    assert Path(made.arguments[-1]).name.endswith(".partial")
    # What it really got is not what was asked for.
    assert layout == PlacedLayout(stripes=4, stripe_size=1 << 20, pool="flash")
    sidecar = check(built, images)
    assert (sidecar.layout, sidecar.hot) == (layout, True)
    # What stands is not made again, and still known.
    assert place(built, images, terms(lfs)) == layout
    assert lfs.verbs == ["setstripe", "getstripe"]


def test_hot_images_get_mirrors_and_are_warmed_once_they_are_whole(
    built: Built, images: Path, tmp_path: Path
) -> None:
    lfs = FakeLfs(tmp_path / "bin", told=MIRRORED)
    layout = place(built, images, terms(lfs, mirrors=2, warm=True), hot=True)
    assert lfs.verbs == ["mirror create", "getstripe", "mirror resync", "ladvise"]
    assert layout is not None
    assert (layout.mirrors, layout.warmed) == (2, True)
    final = images / f"{built.recipe.image_id}.squashfs"
    for each in lfs.asked[2:]:
        assert each.arguments[-1] == str(final)
        assert each.size == built.recipe.size, "all of it"
    assert lfs.asked[3].arguments[-2] == str(built.recipe.size)
    check(built, images)


def test_others_get_neither(built: Built, images: Path, tmp_path: Path) -> None:
    lfs = FakeLfs(tmp_path / "bin")
    layout = place(built, images, terms(lfs, mirrors=2, warm=True), hot=False)
    assert lfs.verbs == ["setstripe", "getstripe"]
    assert layout is not None
    assert not layout.warmed


def test_elsewhere_lfs_is_never_asked(built: Built, images: Path, tmp_path: Path) -> None:
    lfs = FakeLfs(tmp_path / "bin")
    assert place(built, images, terms(lfs, file_system="auto"), hot=True) is None
    assert lfs.asked == []
    assert check(built, images).layout is None


def test_lustre_is_known_by_the_number_of_its_file_system(
    built: Built, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.mkdir()
    # No Lustre here: what this directory is on takes its place.
    monkeypatch.setattr(layouts, "LUSTRE_MAGIC", file_system_type(str(images)))
    lfs = FakeLfs(tmp_path / "bin")
    assert place(built, images, terms(lfs, file_system="auto")) is not None
    assert lfs.verbs == ["setstripe", "getstripe"]


REFUSES = 'if verb in ("setstripe", "mirror create"): sys.exit("lfs: no such pool")'
LEAVES_HALF = 'if verb == "setstripe": open(path, "w").close(); sys.exit(22)'
LIES = 'if verb == "setstripe": sys.exit(0)'
HANGS = 'if verb == "setstripe": time.sleep(60)'


@pytest.mark.parametrize(
    ("behaviour", "trouble", "said"),
    [
        (REFUSES, "refused", "no such pool"),
        (LEAVES_HALF, "refused", "status 22"),
        (LIES, "refused", "made no empty file"),
        (HANGS, "late", "did not end within"),
        (None, "missing", "No such file"),
    ],
)
def test_an_image_is_placed_as_anywhere_where_lfs_does_not_work(
    built: Built,
    images: Path,
    tmp_path: Path,
    behaviour: str | None,
    trouble: str,
    said: str,
) -> None:
    lfs: FakeLfs | Path = tmp_path / "nowhere"
    if behaviour is not None:
        lfs = FakeLfs(tmp_path / "bin", behaviour=behaviour)
    before = outcomes(trouble)
    layout = place(built, images, terms(lfs, lfs_timeout=2.0 if behaviour == HANGS else 30))
    assert outcomes(trouble) == before + 1
    assert layout is not None
    assert layout.fallback is not None
    assert said in layout.fallback
    # Where it can, it still tells what the file got instead.
    assert layout.stripes == (4 if behaviour is not None else None)
    assert check(built, images).layout == layout


async def test_a_program_that_hangs_ends_with_the_placement(
    built: Built, images: Path, tmp_path: Path
) -> None:
    lfs = FakeLfs(tmp_path / "bin", behaviour="time.sleep(60)")
    cancelled = threading.Event()
    whole = Part(total=built.recipe.size)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            place_image(built.recipe, built.store, images, whole, cancelled, terms=terms(lfs))
        except Exception as exc:  # noqa: BLE001 - looked at below
            failed.append(exc)

    placing = threading.Thread(target=work)
    placing.start()
    await eventually(lambda: lfs.asked, within=20)
    began = time.monotonic()
    cancelled.set()
    placing.join(20)
    assert time.monotonic() - began < 15
    assert [type(exc).__name__ for exc in failed] == ["WorkCancelledError"]
    assert not list(images.iterdir())


def test_a_copy_of_mirrors_that_fails_costs_no_image(
    built: Built, images: Path, tmp_path: Path
) -> None:
    lfs = FakeLfs(
        tmp_path / "bin", told=MIRRORED, behaviour='if verb == "mirror resync": sys.exit(16)'
    )
    before = layouts.EXTRAS.labels("mirror", "refused")._value.get()
    assert place(built, images, terms(lfs, mirrors=2, warm=True), hot=True) is not None
    assert layouts.EXTRAS.labels("mirror", "refused")._value.get() == before + 1
    assert lfs.verbs[-1] == "ladvise"
    check(built, images)


async def test_the_catalog_hears_which_layout_a_file_got(
    built: Built, images: Path, tmp_path: Path
) -> None:
    lfs = FakeLfs(tmp_path / "bin", told=MIRRORED)
    layout = {
        "file_system": "lustre",
        "lfs": str(lfs.path),
        "hot": ["docker.io/library/debian:*"],
        "mirrors": 2,
    }
    settings = Settings.model_validate(
        {
            "data_dir": str(tmp_path),
            "systems": {"cluster": {"image_dir": str(images), "layout": layout}},
        }
    )
    bus = EmbeddedBus([GATEWAY_EVENTS])
    await bus.open(Deadline.after(5))
    heard = Recorder()
    await bus.consume(GATEWAY_EVENTS, heard, slots=1)
    record = in_transfer().but(recipe=built.recipe)
    event = placement_work(record, built.recipe, None)
    try:
        assert isinstance(event, PlacementRequested)
        await Placements(settings, bus, built.store, Space()).on_requested(event)
        placed = await eventually(
            lambda: [each for each in heard.events if isinstance(each, ImagePlaced)], within=10
        )
    finally:
        await bus.close()
    assert isinstance(placed, list)
    wanted = PlacedLayout(stripes=6, stripe_size=1 << 20, pool="flash", mirrors=2)
    assert placed[0].layout == wanted
    assert lfs.verbs[0] == "mirror create", "its reference says that it is hot"
    current = taken(MACHINE.placed(record, placed[0], NOW)).current
    assert current is not None
    assert current.layout == wanted
