"""Providers as rows: how they are written and read, and what becomes of a row that cannot be used.

A row that cannot be used (by a follower that is older than the owner, say) is rejected with the
reason, and the provider that was last made from the row of that id stays in its place, unless the
format decides otherwise. All other rows are used. A row that comes again as it was is not read
again.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, get_type_hints

import attrs
import msgspec
import trio

from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import InvalidMessageError, UnsendableError, UnusableRowError
from bridgepool.remote._messages import RejectedRow, Row

B = TypeVar("B")
P = TypeVar("P")
Q = TypeVar("Q")

_LONGEST_NAME: Final = 64
_ROWS_IN_A_ROW: Final = 50  # that are read without a checkpoint; some 10 µs each


def _as_it_was(last: P, row: object) -> P:
    return last


def _nothing(name: str, row: object, reason: str) -> None:
    return None


@attrs.frozen(eq=False)
class RowFormat(Generic[P]):
    """How providers of one type are sent as rows. Owner and follower have one each that agree.

    `RowFormat.of` makes one from a class. With functions of your own::

        RowFormat(dict, attrs.asdict, lambda row: Upstream(**row), id=lambda each: each.name)
    """

    row_type: type[Any]
    """The class of a row: an attrs class, a dataclass, a msgspec Struct, a ``dict``. What it holds
    is what msgspec can encode, and `Secret`, which is sent as text and shown nowhere."""
    to_row: Callable[[P], Any] = attrs.field(repr=False)
    """Make the row of a provider."""
    from_row: Callable[[Any], P] = attrs.field(repr=False)
    """Make the provider of a row. Of an `UnusableRowError` that it raises the text becomes the
    reason why the row is rejected, of any other exception only the name."""
    id: Callable[[P], str] = attrs.field(repr=False, kw_only=True)
    """Return the id of a provider, which stays when other fields change."""
    name: Callable[[P], str] = attrs.field(repr=False, kw_only=True)
    """Return the name of a provider for people; two rows of a set cannot have the same."""
    keep: Callable[[P, Any], P | None] = attrs.field(default=_as_it_was, repr=False, kw_only=True)
    """Make what stays in force of a row that cannot be used, from its last good form and the row.
    The last good form by default; None forgets it."""
    substitute: Callable[[str, Any, str], P | None] = attrs.field(
        default=_nothing, repr=False, kw_only=True
    )
    """Make what stands in the place of a row that cannot be used and of which nothing is kept, from
    its name, the row (None if it cannot be read), and the reason. Nothing by default."""

    @name.default
    def _name_is_id(self) -> Callable[[P], str]:
        return self.id

    @staticmethod
    def of(
        kind: type[Q],
        *,
        id: str | Callable[[Q], str] = "name",
        name: str | Callable[[Q], str] | None = None,
    ) -> "RowFormat[Q]":
        """Send providers as they are: their class is that of the rows, too.

        Args:
            kind: An attrs class, a dataclass or a msgspec Struct. A field that is added later has
                a default, so that rows of an older owner can be read. To reject values with a
                reason, let the class raise `UnusableRowError`.
            id: The field that identifies a provider, or a function that returns its value.
            name: The same for the name that people read; the id if not given.

        Raises:
            TypeError: The class has no such field.
        """
        return RowFormat(
            kind,
            _itself,
            _itself,
            id=_getter(kind, id),
            name=_getter(kind, id if name is None else name),
        )

    def write(self, provider: P) -> Row:
        """Return the row of a provider.

        Raises:
            UnsendableError: It cannot be encoded, or its id or name is not a text.
        """
        which, name = self.id(provider), self.name(provider)
        # Followers could read none of the rows.
        for what, found in (("id", which), ("name", name)):
            if not isinstance(found, str):
                kind, got = type(provider).__name__, type(found).__name__
                raise UnsendableError(f"the {what} of a {kind} is a {got}, not a text")
        body = codec.encode(self.to_row(provider)).raw
        return Row(id=which, name="" if name == which else name, body=body)

    def read(self, body: bytes) -> P:
        """Return the provider of a row's body.

        Raises:
            UnusableRowError: The row cannot be used.
        """
        row = self._decode(body)
        try:
            provider = self.from_row(row)
        except UnusableRowError as error:
            reason = error.reason
        except Exception as error:  # their function: it costs this row
            reason = f"it cannot be used ({type(error).__name__})"
        else:
            try:
                hash(provider)  # or no snapshot takes it, nor any row beside it
            except TypeError:
                reason = "it is not hashable: give its fields types such as tuple[str, ...]"
            else:
                return provider
        raise UnusableRowError(reason)

    def kept(self, last: P, body: bytes) -> P | None:
        """Return what stays in force of a row that cannot be used; None if nothing does."""
        if self.keep is _as_it_was:
            return last
        try:
            return self.keep(last, self._decode(body))
        except Exception:  # not even that much of the row can be read
            return last

    def substituted(self, name: str, body: bytes, reason: str) -> P | None:
        """Return what stands in the place of a row that cannot be used; None if nothing does."""
        if self.substitute is _nothing:
            return None
        try:
            row = self._decode(body)
        except UnusableRowError:
            row = None
        return self.substitute(name, row, reason)

    def _decode(self, body: bytes) -> Any:
        try:
            return codec.decode(msgspec.Raw(body), self.row_type)
        except InvalidMessageError as error:
            reason = error.reason
        except Exception as error:  # of their class
            reason = f"it cannot be read ({type(error).__name__})"
        raise UnusableRowError(reason)


def _itself(value: P) -> P:
    return value


def _getter(kind: type[P], field: str | Callable[[P], str]) -> Callable[[P], str]:
    if not isinstance(field, str):
        return field
    if field not in get_type_hints(kind):
        raise TypeError(
            f"{kind.__name__} has no field {field!r}: name the field that identifies a provider, "
            "as in RowFormat.of(Upstream, id='host')"
        )
    return attrgetter(field)


def require_row_format(value: object, who: str) -> None:
    """Raise `TypeError` unless `value` is a format; `who` names the function that needs one."""
    if not isinstance(value, RowFormat):
        name = value.__name__ if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{who} needs a RowFormat, not {name}: write RowFormat.of(...)")


@attrs.frozen
class GoodRow(Generic[B, P]):
    """A row, and what was made from it."""

    name: str
    """The name that people read."""
    body: B
    """As it was sent."""
    provider: P
    """What was made from it."""


@attrs.frozen
class RowTable(Generic[B, P]):
    """The providers of one set of rows, and the rows that gave none.

    Args:
        read: Makes a provider from a row's body, or raises `UnusableRowError`.
        kept: Makes what stays in force of a row that cannot be used, from its last good form.
        substituted: Makes what stands in the place of one of which nothing is kept.
    """

    read: Callable[[B], P] = attrs.field(repr=False)
    kept: Callable[[P, B], P | None] = attrs.field(default=_as_it_was, repr=False)
    substituted: Callable[[str, B, str], P | None] = attrs.field(default=_nothing, repr=False)
    providers: tuple[P, ...] = ()
    """In the order of the rows, with what is kept of rejected rows, or stands in for them, in their
    places."""
    rejected: tuple[RejectedRow, ...] = ()
    """The rows that could not be used, and why."""
    good: Mapping[str, GoodRow[B, P]] = attrs.field(default=MappingProxyType({}), repr=False)
    """By row id: what was last made from it, of the rows of this set only."""

    def updated(self, rows: Iterable[tuple[str, str, B]]) -> "RowTable[B, P]":
        """Return the table of another set of rows: id, name and body of each."""
        builder = _Builder(self)
        for which, name, body in rows:
            builder.add(which, name, body)
        return builder.finish()

    async def updated_in_turns(self, rows: Iterable[tuple[str, str, B]]) -> "RowTable[B, P]":
        """Do the same, and let others run in between when many rows are new.

        Not a checkpoint when few are.
        """
        builder, checked = _Builder(self), 0
        for which, name, body in rows:
            checked += builder.add(which, name, body)
            if checked == _ROWS_IN_A_ROW:
                checked = 0
                await trio.lowlevel.checkpoint()
        return builder.finish()


@attrs.define(eq=False)
class _Builder(Generic[B, P]):
    """Makes a table row by row."""

    previous: RowTable[B, P]
    # row id -> its name and body, and what was made of it or why it is rejected, in order
    found: dict[str, tuple[str, B, GoodRow[B, P] | str]] = attrs.field(factory=dict)
    names: set[str] = attrs.field(factory=set)  # of good rows
    repeated: list[RejectedRow] = attrs.field(factory=list)

    def add(self, which: str, name: str, body: B) -> bool:
        """Take the next row; return whether it had to be read."""
        if which in self.found:
            self.repeated.append(_rejected(name, "another row has the same id"))
            return False
        made: GoodRow[B, P] | str
        known = self.previous.good.get(which)
        is_known = known is not None and (known.body is body or known.body == body)
        if known is not None and is_known:
            made = known if known.name == name else attrs.evolve(known, name=name)
        else:
            made = self._read(name, body)
        if isinstance(made, GoodRow):
            if name in self.names:
                made = "another row has the same name"
            else:
                self.names.add(name)
        self.found[which] = (name, body, made)
        return not is_known

    def _read(self, name: str, body: B) -> GoodRow[B, P] | str:
        try:
            return GoodRow(name, body, self.previous.read(body))
        except UnusableRowError as error:
            return error.reason

    def finish(self) -> RowTable[B, P]:
        """Return the table of all rows taken."""
        previous, good = self.previous, dict[str, GoodRow[B, P]]()
        places, rejected = dict[str, P](), list[RejectedRow]()  # by row id, not in order yet
        for which, (name, body, made) in self.found.items():
            if isinstance(made, GoodRow):
                good[which] = made
                places[which] = made.provider
                continue
            rejected.append(_rejected(name, made))
            last = previous.good.get(which)
            # A name is never there twice: the row that can be used has the better right to it.
            if last is not None and last.name not in self.names:
                kept = previous.kept(last.provider, body)
                if kept is not None:
                    self.names.add(last.name)
                    good[which] = last
                    places[which] = kept
        # After all that is kept, which has the better right to a name.
        for which, (name, body, made) in self.found.items():
            if which not in places and isinstance(made, str) and name not in self.names:
                stand_in = previous.substituted(name, body, made)
                if stand_in is not None:
                    self.names.add(name)
                    places[which] = stand_in
        providers = tuple(places[which] for which in self.found if which in places)
        return attrs.evolve(
            previous, providers=providers, rejected=(*rejected, *self.repeated), good=good
        )


def _rejected(name: str, reason: str) -> RejectedRow:
    shown = name if name.isprintable() else "(name not shown)"
    return RejectedRow(shown[:_LONGEST_NAME], reason)
