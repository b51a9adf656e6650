"""What all clients of the soak share: which gateway there is, and what must not happen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import attrs
import trio


@attrs.define(eq=False)
class Run:
    """One run of the soak: its gateway, which comes and goes, and its faults."""

    url: str
    """Of the gateway that runs, or ran last."""
    gateway_up: bool = True
    stopping: bool = False
    """Clients end when they have what they asked for."""
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when another gateway is there."""
    faults: list[str] = attrs.field(factory=list)
    _numbers: Iterator[int] = attrs.field(factory=partial(itertools.count, 1))

    def next_number(self) -> int:
        """Return another number each time."""
        return next(self._numbers)

    def fault(self, text: str) -> None:
        """Note what must not happen; the first ones are enough."""
        if len(self.faults) < 20:
            self.faults.append(text)

    def gateway_gone(self) -> None:
        """Expect requests to fail, until `gateway_back`."""
        self.gateway_up = False

    def gateway_back(self, url: str) -> None:
        """Go on with another gateway."""
        self.url, self.gateway_up = url, True
        self.changed.set()
        self.changed = trio.Event()

    def is_up(self, url: str) -> bool:
        """Return whether the gateway of this URL runs."""
        return self.gateway_up and url == self.url
