"""Questions that a database answers by adding up, so that nobody reads records only to count them.

Fields are indexed ones, and their values are text here, as in every condition: the order of the
text is what "between" means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | None
"""An indexed field as text; None: the record has no value there."""
Wanted = Mapping[str, tuple[Value, ...]]
"""Indexed fields, and the values that each may have."""


@dataclass(frozen=True, slots=True)
class Between:
    """A range of a field's values: from `low`, and below `high`."""

    field: str
    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Group records by some fields; count them, add up others, and find the greatest of one."""

    by: tuple[str, ...]
    limit: int
    leading: int | None = None
    """How many characters of the first field of `by` make a group; None: all."""
    sums: tuple[str, ...] = ()
    greatest: str | None = None
    where: Wanted = field(default_factory=dict)
    either: tuple[Wanted, ...] = ()
    """At least one of these conditions, where there are any."""
    between: Between | None = None
    largest_first: bool = False
    """In the order of all sums together; else in that of the groups."""
    offset: int = 0

    @property
    def fields(self) -> frozenset[str]:
        """Every field that it names."""
        named = {*self.by, *self.sums, *self.where}
        for condition in self.either:
            named |= condition.keys()
        if self.greatest is not None:
            named.add(self.greatest)
        if self.between is not None:
            named.add(self.between.field)
        return frozenset(named)


@dataclass(frozen=True, slots=True)
class Total:
    """One group: the values that its records have in common, and what they come to."""

    by: tuple[Value, ...]
    count: int
    sums: tuple[int, ...] = ()
    greatest: Value = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a listing ended: the value that it is ordered by, and the record's key."""

    value: str
    key: str
