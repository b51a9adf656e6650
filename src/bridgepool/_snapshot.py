"""What a bridge is built from: the providers as they were at one moment."""

from collections.abc import Iterable
from typing import Generic, TypeVar

import attrs

P = TypeVar("P")


def _as_tuple(providers: Iterable[P]) -> tuple[P, ...]:
    return tuple(providers)


@attrs.frozen
class ProviderSnapshot(Generic[P]):
    """An immutable, ordered set of providers, with the revision of its source.

    Two snapshots with equal providers in the same order are the same to a pool: replacing
    one by the other closes nothing. So give providers value equality (attrs and dataclasses
    do), and let it cover everything a bridge depends on, keys included.

    Args:
        providers: Any iterable; kept as a tuple. The core never looks inside.
        revision: A number that grows with every change at the source, or None when the
            source has none. A pool refuses a revision lower than the one in force.
    """

    providers: tuple[P, ...] = attrs.field(converter=_as_tuple)
    revision: int | None = None

    def same_providers(self, other: "ProviderSnapshot[P]") -> bool:
        """Tell whether both hold equal providers in the same order, whatever the revisions."""
        return self.providers == other.providers

    def older_than(self, other: "ProviderSnapshot[P]") -> bool:
        """Tell whether both carry a revision and this one's is the lower."""
        if self.revision is None or other.revision is None:
            return False
        return self.revision < other.revision
