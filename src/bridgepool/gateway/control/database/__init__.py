"""A database of whichever engine: transactions in worker threads, and notices of commits.

Both engines keep the promises of `Database`, in the same words and under the same tests; nobody
beyond this room knows which one is open. They know SQL and no provider: of the control plane they
import its errors and nothing else.

`transactions` says what is promised, `opening` picks the engine; `sqlite` and `postgres` are the
engines, with what a connection does in its thread beside each; `engines` is what they do alike,
`migrations` brings tables up to date. The engine that is not used is not imported, nor is psycopg.
"""

from bridgepool.gateway.control.database._opening import check_store_exists, open_database
from bridgepool.gateway.control.database._transactions import (
    Database,
    Migrations,
    Row,
    Transaction,
    Value,
)

__all__ = [
    "Database",
    "Migrations",
    "Row",
    "Transaction",
    "Value",
    "check_store_exists",
    "open_database",
]
