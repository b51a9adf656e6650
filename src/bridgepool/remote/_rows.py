"""From the rows that a control plane sends to providers; a bad row is its own trouble. Pure.

A row that cannot be used (by a gateway that is older than the control plane, say) is rejected
with the reason, and the provider that was last made from the row of that id stays in its place.
All other rows are used.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from bridgepool.gateway.providers import InvalidProviderError, Provider
from bridgepool.gateway.providers._wire import ProviderRow, provider_from_row, switched
from bridgepool.remote._messages import Rejection

_LONGEST_NAME: Final = 64


# A row, and what was made from it.
_Good: TypeAlias = tuple[ProviderRow, Provider]

_NOTHING: Final[Mapping[str, _Good]] = MappingProxyType({})


@attrs.frozen
class ProviderTable:
    """The providers of one set of rows, and the rows that gave none."""

    providers: tuple[Provider, ...] = ()
    """In the order of the rows, with the last good forms of rejected rows in their places."""
    rejected: tuple[Rejection, ...] = ()
    """The rows that could not be used, and why."""
    # row id -> what was last made from it, of the rows of this set only
    _good: Mapping[str, _Good] = attrs.field(default=_NOTHING, repr=False)

    def updated(self, rows: Iterable[ProviderRow]) -> "ProviderTable":
        """Return the table of another set of rows; see `TableBuilder`."""
        builder = TableBuilder(self)
        for row in rows:
            builder.add(row)
        return builder.finish()


@attrs.define(eq=False)
class TableBuilder:
    """Makes a table row by row, so that whoever has many of them can pause in between.

    Args:
        previous: The table before. A row that is as it was there is not checked again.
    """

    _previous: ProviderTable
    # row id -> its row, and the provider or what is wrong with it, in order
    _found: dict[str, tuple[ProviderRow, Provider | str]] = attrs.field(factory=dict, init=False)
    _names: set[str] = attrs.field(factory=set, init=False)  # of good rows
    _repeated: list[Rejection] = attrs.field(factory=list, init=False)

    def add(self, row: ProviderRow) -> bool:
        """Take the next row; tell whether it had to be checked, which takes some 10 µs."""
        if row.id in self._found:
            self._repeated.append(_rejection(row, "another row has the same id"))
            return False
        known = self._previous._good.get(row.id)
        # Mostly it is the very row that came before; see `RowReader`.
        is_known = known is not None and (known[0] is row or known[0] == row)
        found = known[1] if known is not None and is_known else _make(row)
        if isinstance(found, Provider):
            if found.name in self._names:
                found = "another row has the same name"
            else:
                self._names.add(found.name)
        self._found[row.id] = (row, found)
        return not is_known

    def finish(self) -> ProviderTable:
        """Return the table of all rows taken."""
        good: dict[str, _Good] = {}
        rejected: list[Rejection] = []
        for row, found in self._found.values():
            if isinstance(found, Provider):
                good[row.id] = row, found
                continue
            rejected.append(_rejection(row, found))
            kept = self._previous._good.get(row.id)
            # A name is never there twice: the row that can be used has the better right to it.
            if kept is not None and kept[1].name not in self._names:
                self._names.add(kept[1].name)
                good[row.id] = _switched(kept, row)
        providers = tuple(provider for _row, provider in good.values())
        return ProviderTable(providers, (*rejected, *self._repeated), good)


def _make(row: ProviderRow) -> Provider | str:
    try:
        return provider_from_row(row)
    except InvalidProviderError as error:
        return str(error)


def _switched(kept: _Good, row: ProviderRow) -> _Good:
    good_row, provider = kept
    found = switched(provider, row)
    return kept if found is provider else (attrs.evolve(good_row, enabled=row.enabled), found)


def _rejection(row: ProviderRow, reason: str) -> Rejection:
    shown = row.name if row.name.isprintable() else "(name not shown)"
    return Rejection(shown[:_LONGEST_NAME], reason)
