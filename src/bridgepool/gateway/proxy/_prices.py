"""The price table in force, and the models that it has no price for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import attrs

from bridgepool.gateway.limits._prices import PriceTable, PriceTableError

logger = logging.getLogger("bridgepool.gateway")

MAX_MODELS: Final = 100
"""How many models without a price are listed."""


@attrs.define(eq=False)
class Prices:
    """What tokens cost now, for usage records and for budgets; it is replaced while requests run.

    A request is priced by the table in force at its end. The estimate that its budget held until
    then, by the table at its beginning, is given back in full. So no request is priced by two
    tables.
    """

    table: PriceTable | None = None
    without_price: dict[tuple[str, str], None] = attrs.field(factory=dict, init=False)
    """Provider and model of answers that were priced by ``[unknown]``; the first ones."""

    def replace(self, table: PriceTable) -> None:
        """Put another table in force.

        Raises:
            PriceTableError: It has another currency than the one that budgets are counted in.
        """
        if self.table is not None and table.currency != self.table.currency:
            raise PriceTableError(
                f"currency: is {table.currency}, but budgets are counted in {self.table.currency} "
                "until the gateway is restarted"
            )
        self.table = table
        self.without_price.clear()

    def cost(self, provider: str, model: str, *counts: int) -> float:
        """Return what so many tokens cost, as `Price.of`; 0 without a table."""
        return 0.0 if self.table is None else self.table.price_of(provider, model).of(*counts)

    def note_answer(self, provider: str, model: str) -> None:
        """Note which model has answered; log it once if it has no price of its own.

        Models that were only asked for are not noted: clients can name any.
        """
        table = self.table
        if table is None or table.price_of(provider, model) is not table.unknown:
            return
        known = self.without_price
        if (provider, model) not in known and len(known) < MAX_MODELS:
            known[provider, model] = None
            fields = {"provider": provider, "model": model}
            logger.warning("model without a price; priced as unknown", extra=fields)

    def document(self) -> Mapping[str, object] | None:
        """Return the part of `/status` about prices; None without a table."""
        if self.table is None:
            return None
        models = [{"provider": provider, "model": model} for provider, model in self.without_price]
        return {"currency": self.table.currency, "models_without_price": models}
