"""Which names of a `fallback` lead to no provider that could stand in. Pure."""

from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs


class HasFallback(Protocol):
    """What is looked at of a provider, whichever form of it that is."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def fallback(self) -> tuple[str, ...]:
        """The names of those that may stand in for it."""
        ...


@attrs.frozen
class UnusableFallback:
    """A name in the `fallback` of a provider that cannot be used."""

    provider: str
    """The provider that has it."""
    fallback: str
    """The name."""
    is_known: bool
    """There is a provider of that name, of another type."""

    @property
    def reason(self) -> str:
        """Say why it cannot be used."""
        return "it is of another type" if self.is_known else "there is no provider of that name"


def unusable_fallbacks(providers: Iterable[HasFallback]) -> Iterator[UnusableFallback]:
    """Find the names in the `fallback` of providers that cannot be used, among all of a set."""
    known = tuple(providers)
    asking = [provider for provider in known if provider.fallback]
    types = {provider.name: provider.type for provider in known} if asking else {}
    for provider in asking:
        for name in provider.fallback:
            if types.get(name) != provider.type:
                yield UnusableFallback(provider.name, name, name in types)
