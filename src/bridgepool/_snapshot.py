"""What a bridge is built from: the providers as they were at one moment."""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)


def _as_tuple(providers: Iterable[P]) -> tuple[P, ...]:
    # Providers may hold secrets: messages show types and positions only.
    kind = type(providers).__name__
    if isinstance(providers, (str, bytes)):
        raise TypeError(f"providers is a {kind}, not a list of them: write [provider]")
    if isinstance(providers, Mapping):
        raise TypeError(f"providers is a {kind}: give its values, not its keys")
    if not isinstance(providers, Iterable):
        raise TypeError(f"providers is a {kind}, not a list of them: write [provider]")
    kept = tuple(providers)
    for number, provider in enumerate(kept):
        try:
            hash(provider)
        except TypeError as error:
            raise TypeError(
                f"provider {number} ({type(provider).__name__}) is not hashable: use tuples and "
                "frozen classes, all the way down; a change in place would go unnoticed"
            ) from error
    return kept


def _check_revision(instance: object, attribute: "attrs.Attribute[int | None]", value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"revision is a {type(value).__name__}, not a whole number or None")


def _check_epoch(instance: object, attribute: "attrs.Attribute[str | None]", value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"epoch is a {type(value).__name__}, not a text or None")


@attrs.frozen
class ProviderSnapshot(Generic[P_co]):
    """An immutable, ordered set of providers, with the revision of its source.

    Two snapshots with equal providers in the same order are the same to a pool: replacing
    one by the other closes nothing. So give providers value equality (frozen attrs classes and
    frozen dataclasses have it), and let it cover everything a bridge depends on, keys included.

    Args:
        providers: Any iterable of hashable values; kept as a tuple. The core never looks inside.
        revision: A number that grows with every change at the source, or None when the
            source has none. A pool refuses a revision lower than the one in force.
        allow_empty: If there are no providers: the source states that this is intended. A pool
            does not ask; a gateway refuses an empty set that may be an accident.
        epoch: Identifies the history that the revision counts in, any text; None when the source
            has only one. A source that goes back, as after a backup was restored, changes it:
            revisions of two epochs do not compare, and a pool takes what comes.

    Raises:
        TypeError: The providers are a string or a mapping, or one of them is not hashable: it
            could be changed in place, which no pool would notice. Or the revision is not an int,
            or the epoch not a str.
    """

    providers: tuple[P_co, ...] = attrs.field(converter=_as_tuple)
    revision: int | None = attrs.field(default=None, validator=_check_revision)
    allow_empty: bool = attrs.field(default=False, kw_only=True, eq=False)
    epoch: str | None = attrs.field(default=None, validator=_check_epoch)

    def same_providers(self, other: "ProviderSnapshot[object]") -> bool:
        """Return whether both hold equal providers in the same order, whatever the revisions."""
        return self.providers == other.providers

    def older_than(self, other: "ProviderSnapshot[object]") -> bool:
        """Return whether both carry a revision of one epoch and this one's is the lower."""
        if self.revision is None or other.revision is None or self.epoch != other.epoch:
            return False
        return self.revision < other.revision


def require_snapshot(value: object, who: str) -> None:
    """Raise `TypeError` unless `value` is a snapshot; `who` names the function that wants one."""
    if not isinstance(value, ProviderSnapshot):
        raise TypeError(
            f"{who} needs a ProviderSnapshot, not a {type(value).__name__}: "
            "write ProviderSnapshot([...])"
        )
