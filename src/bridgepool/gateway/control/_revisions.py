"""Where a store is: its revisions, and the history that they count in. Pure."""

from __future__ import annotations

from collections.abc import Container

import attrs


@attrs.frozen
class Revisions:
    """Where a store is."""

    revision: int
    """Grows with every change that gateways can see."""
    providers: int
    """The revision at which a provider last changed."""
    clients: int
    """The revision at which a client, or a key of one, last changed."""
    epoch: str = ""
    """The history that these count in. Another one since the store went back to an earlier state;
    revisions of two epochs do not compare."""
    mark: str = ""
    """Random, another one with each revision: it differs between two changes that made the same
    revision. Empty if it is unknown."""

    def lost_by(self, present: Revisions, epochs: Container[str]) -> bool:
        """Return whether a store that was here went back since, as by a restored backup.

        Args:
            present: Where it is now.
            epochs: All epochs that it knows.
        """
        if self.epoch == present.epoch:
            is_behind = self.revision > present.revision or self.clients > present.clients
            marks = {self.mark, present.mark} - {""}
            return is_behind or (self.revision == present.revision and len(marks) > 1)
        return bool(self.epoch) and self.epoch not in epochs
