"""Providers, clients and keys in a database: the one place where they change.

A method of `Store` is one transaction: a plain function on a `StoreTransaction`, which runs inside
a worker thread, without an await.

* `_transaction`: revisions and encryption; `_keyring`: keys that are replaced while it is open;
* `_…_rows`: one table each, whose columns are the fields of its row class, and what is done with
  its rows; `_provider_settings`: what of a provider is encrypted, and by which rules a draft
  becomes one;
* `_applying`, `_seeding`: many rows at once, as people declare them or a seed does;
* `_reading`: everything that gateways serve by; `_programs`: the programs that have it open;
* `_schema`: the tables; `_opening`: opens a store.

It may import the values and the database, and knows no gateway, no hub and no HTTP.
"""

from bridgepool.gateway.control.store._budget_rows import budgets_of
from bridgepool.gateway.control.store._gateway_rows import GatewayExpiry
from bridgepool.gateway.control.store._opening import open_store
from bridgepool.gateway.control.store._programs import Programs, RunningProgram
from bridgepool.gateway.control.store._store import Store
from bridgepool.gateway.control.store._usage_rows import StoredUsage

__all__ = [
    "GatewayExpiry",
    "Programs",
    "RunningProgram",
    "Store",
    "StoredUsage",
    "budgets_of",
    "open_store",
]
