"""What the tests of whole systems share: both engines, and simulated upstreams."""

from tests.gateway.control.conftest import database_url
from tests.postgres import own_postgres_server, postgres_server
from tests.simulated import north, south, steady

__all__ = ["database_url", "north", "own_postgres_server", "postgres_server", "south", "steady"]
