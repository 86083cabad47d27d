"""What users are shown is kept for one version of one pull."""

from services.gateway.directory import Directory, Entry
from services.gateway.lookups import Renderings
from services.gateway.views import image_view
from shared.catalog.records import ImageRecord
from tests.support.transitions import ready


def entry_of(record: ImageRecord) -> Entry:
    directory = Directory()
    directory.note(record.key, record)
    entry = directory.get(record.key)
    assert entry is not None
    return entry


def test_what_was_rendered_is_kept_for_its_version() -> None:
    record, kept = ready().but(version=3), Renderings(image_view)
    made = kept.render(record)
    assert made is not None
    assert kept.get(entry_of(record)) is made
    assert kept.get(entry_of(record.but(version=4))) is None


def test_what_was_forgotten_and_pulled_again_is_not_what_it_was() -> None:
    """Its versions count from one again, and may be the same."""
    record, kept = ready().but(version=3), Renderings(image_view)
    kept.render(record)
    assert kept.get(entry_of(record.but(pull_id="another"))) is None
