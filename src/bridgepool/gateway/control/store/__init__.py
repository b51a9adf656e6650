"""Providers, clients and keys in a database: the one place where they change.

A method of `Store` is one transaction: a plain function on a `StoreTransaction`, which runs inside
a worker thread, without an await.

* `_transaction`: revisions, encryption, audit;
* `_…_rows`: one table each; `_provider_settings`: what of a provider is encrypted, and by which
  rules a draft becomes one;
* `_applying`, `_seeding`: many rows at once, as people declare them or a seed does;
* `_snapshots`: all that gateways serve by, of one moment; `_rotation`: everything encrypted anew;
* `_schema`: the tables.

It may import the values and the database, and knows no gateway, no hub and no HTTP.
"""

from bridgepool.gateway.control.store._opening import open_store
from bridgepool.gateway.control.store._store import Store

__all__ = ["Store", "open_store"]
