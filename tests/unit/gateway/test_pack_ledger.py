"""The ledger's sums are those of a recount, whatever comes, changes and goes in whichever order."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.directory import Directory
from services.gateway.stock.pack_ledger import PackLedger
from shared.catalog.records import ImageRecord
from shared.states import State
from tests.support.shares import length, made

NAMES = ("alpine", "debian", "fedora")
IMAGES = {"a": "de", "b": "df", "c": "", "d": "dedc", "e": "f"}
"""What each is made of: packs that others have too, one that occurs again, or nothing known."""


@dataclass(frozen=True)
class Told:
    """A record as it becomes, or that it is gone."""

    name: str
    owner: int | None
    private: bool
    letter: str | None
    gone: bool

    @property
    def record(self) -> ImageRecord:
        letter = self.letter or "a"
        record = made(self.name, letter, IMAGES[letter], owner=self.owner)
        record = record.but(private=self.private and self.owner is not None)
        return record if self.letter else record.but(current=None, state=State.EXPIRED)


TOLD = st.builds(
    Told,
    name=st.sampled_from(NAMES),
    owner=st.sampled_from([None, 1000]),
    private=st.booleans(),
    letter=st.sampled_from([*IMAGES, None]),
    gone=st.booleans(),
)


@given(st.lists(TOLD, max_size=25))
def test_what_is_added_up_is_what_a_recount_finds(told: list[Told]) -> None:
    directory = Directory()
    ledger = PackLedger(directory)
    truth: dict[str, ImageRecord] = {}
    for version, each in enumerate(told, 1):
        record = each.record.but(version=version)
        if each.gone:
            directory.drop(record.key)
            truth.pop(record.key, None)
        else:
            directory.note(record.key, record)
            truth[record.key] = record
        _agree(ledger, directory, list(truth.values()))


def _agree(ledger: PackLedger, directory: Directory, records: list[ImageRecord]) -> None:
    standing = [record for record in records if record.current is not None]
    images = {_letter(record) for record in standing}
    public = {_letter(record) for record in standing if not record.private}
    packs = {pack for letter in images for pack in IMAGES[letter]}
    totals = ledger.totals
    assert totals.images == len(images)
    assert totals.layers == sum(len(IMAGES[letter]) for letter in images)
    assert totals.image_bytes == sum(length(p) for letter in images for p in IMAGES[letter])
    assert totals.packs == len(packs)
    assert totals.pack_bytes == sum(map(length, packs))
    for record in standing:
        entry = directory.get(record.key)
        assert entry is not None
        own = _letter(record)
        for among, private_too in ((images, True), (public, False)):
            elsewhere = {pack for letter in among - {own} for pack in IMAGES[letter]}
            shared = sum(length(pack) for pack in set(IMAGES[own]) & elsewhere)
            expected = shared if IMAGES[own] else None
            assert ledger.shared_bytes(entry, private_too=private_too) == expected
        counts = tuple(
            sum(pack in IMAGES[letter] for letter in public - {own}) for pack in IMAGES[own]
        )
        assert ledger.others(own * 64, [pack * 64 for pack in IMAGES[own]]) == counts


def _letter(record: ImageRecord) -> str:
    assert record.current is not None
    return record.current.image_id[0]


def test_bytes_that_an_image_was_woven_without_are_of_the_pack_all_the_same() -> None:
    directory = Directory()
    ledger = PackLedger(directory)
    for letter, left_out in (("a", 0), ("b", 400)):
        record = made(f"image-{letter}", letter, "d", left_out=left_out)
        directory.note(record.key, record)
    assert ledger.totals.pack_bytes == length("d")
    assert ledger.totals.image_bytes == 2 * length("d") - 400


def test_what_an_earlier_version_did_not_say_is_taken_from_who_says_it() -> None:
    directory = Directory()
    ledger = PackLedger(directory)
    silent, speaking = made("silent", "a", ""), made("speaking", "a", "de")
    for record in (silent, speaking):
        directory.note(record.key, record)
    assert (ledger.totals.images, ledger.totals.packs) == (1, 2)
    directory.drop(speaking.key)
    assert (ledger.totals.images, ledger.totals.packs) == (1, 2)
    directory.drop(silent.key)
    assert ledger.totals.model_dump() == dict.fromkeys(type(ledger.totals).model_fields, 0)
