"""A database of either engine: transactions in worker threads, and notices of commits.

Both engines keep the promises of `Database`, under the same tests; other packages do not know
which one is open. They know SQL and no provider: of the control plane they import its errors and
nothing else.

* `_database`: `Database`, `Transaction`, and what an engine provides;
* `_table`: a table whose columns are the fields of an attrs class;
* `_pool`: a bounded pool of connections, each used by one thread at a time;
* `_sqlite`, `_postgres`: the engines; the one that is not used is not imported, nor is psycopg;
* `_postgres_server`: how to connect to one of several servers, and what their errors mean;
* `_opening`: picks the engine and migrates the tables.
"""

from bridgepool.gateway.control.database._database import (
    Cursor,
    Database,
    Migrations,
    Row,
    Transaction,
    Value,
)
from bridgepool.gateway.control.database._opening import check_store_exists, open_database
from bridgepool.gateway.control.database._table import Codec, Table, time_to_text

__all__ = [
    "Codec",
    "Cursor",
    "Database",
    "Migrations",
    "Row",
    "Table",
    "Transaction",
    "Value",
    "check_store_exists",
    "open_database",
    "time_to_text",
]
