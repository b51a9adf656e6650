"""The price table in force."""

from __future__ import annotations

import attrs

from bridgepool.gateway.limits._prices import PriceTable, PriceTableError


@attrs.define(eq=False)
class Prices:
    """What tokens cost now, for usage records and for budgets; it is replaced while requests run.

    A request costs what the table in force at its end says. What its budget held until then, by
    that of its beginning, is given back in full. So no request is counted by two tables.
    """

    table: PriceTable | None = None

    def replace(self, table: PriceTable) -> None:
        """Put another table in force.

        Raises:
            PriceTableError: It has another currency, in which budgets have spent nothing yet.
        """
        if self.table is not None and table.currency != self.table.currency:
            raise PriceTableError(
                f"currency: is {table.currency}, but budgets are counted in {self.table.currency} "
                "until the gateway is restarted"
            )
        self.table = table
