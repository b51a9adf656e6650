"""Providers, clients and keys in a database: the one place where they change.

A method of `Store` is one transaction (`running`), and is done by plain functions on a `Reading`
or a `Writing` (`writing`), inside a worker thread, without an await:

* `…_rows`: one table each, found, shown and changed; `provider_settings`: what of a provider is
  encrypted, and by which rules a draft becomes one;
* `applying`, `seeding`: many rows at once, as people declare them or a seed does;
* `snapshots`: all that gateways serve by, of one moment; `rotation`: everything encrypted anew;
* `schema`: the tables.

It may import the values and the database, and knows no gateway, no hub and no HTTP.
"""

from bridgepool.gateway.control.store._opening import open_store
from bridgepool.gateway.control.store._store import Store

__all__ = ["Store", "open_store"]
