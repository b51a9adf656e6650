"""The control plane: the store that owns the providers, its API, and its service for gateways.

Its parts, each of which imports only those before it:

* `_errors`, `_records` (what the store, the API and the commands exchange), `_documents` (providers
  as JSON or TOML), `_applied` (whether a change is live), `_encryption`;
* `database`: the two engines, which know nothing of providers;
* `store`: providers, clients and keys in a database;
* `operations`: what an administrator can ask, each declared once, and two ways to carry it out: on
  a store, or by the API;
* `_sessions` and `_hub`: what gateways are served, and what they acknowledged;
  `_embedded`: the same for a gateway that opens the store itself; `_first_keys`;
* `api`: the operations over HTTP;
* `_process`: all of it as a program.
"""

from bridgepool.gateway.control._gateway_service import GatewayBackend, open_gateway_service
from bridgepool.gateway.control._memory import MemoryBackend
from bridgepool.gateway.control._records import Revisions

__all__ = ["GatewayBackend", "MemoryBackend", "Revisions", "open_gateway_service"]
