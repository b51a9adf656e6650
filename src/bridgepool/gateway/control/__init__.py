"""The control plane: the store that owns the providers, its API, and its service for gateways.

Rooms, each of which imports only those before it:

* plain values that all share: `errors`, `records` (what is asked and answered), `documents`
  (the same as JSON or TOML), `applied` (whether a change is live), `encryption`;
* `database`: the two engines, which know nothing of providers;
* `store`: providers, clients and keys in a database;
* `receipts` and `hub`: what gateways are served by, and what they made of it; `embedded`: the same
  for a gateway that opens the store itself; `first_keys`;
* `api`: the store and the hub over HTTP; `admin`: what the command line needs, on either;
* `process`: all of it as a program.
"""
