"""The AI providers: what an operator says about them, which of their routes are open, whose
credentials a request carries, and the file they stand in.

The model, the rules and the parser are pure. `open_provider_file` needs
``pip install 'bridgepool[files]'``; importing this package does not.
"""

from bridgepool.providers.base_url import BaseURL, address_is_private, parse_base_url
from bridgepool.providers.clients import Caller, Client, Clients, hash_key, new_client_key
from bridgepool.providers.credentials import (
    CLIENT_CREDENTIALS,
    GATEWAY_KEY_HEADER,
    ClientToken,
    Headers,
    find_client_token,
    swap_credentials,
)
from bridgepool.providers.errors import (
    AuthorizationUnavailableError,
    InvalidProviderError,
    ProviderFileError,
    ProviderKeyError,
)
from bridgepool.providers.file import ProviderFile, parse_provider_file
from bridgepool.providers.model import KEYS_LIMIT, MAX_KEYS, Provider
from bridgepool.providers.routes import Route, RouteKind, RouteMatch, Target, split_target
from bridgepool.providers.secret import Secret
from bridgepool.providers.source import ProviderFileSource, open_provider_file
from bridgepool.providers.types import ANTHROPIC, OPENAI, PROVIDER_TYPES, ProviderType

__all__ = [
    "ANTHROPIC",
    "CLIENT_CREDENTIALS",
    "GATEWAY_KEY_HEADER",
    "KEYS_LIMIT",
    "MAX_KEYS",
    "OPENAI",
    "PROVIDER_TYPES",
    "AuthorizationUnavailableError",
    "BaseURL",
    "Caller",
    "Client",
    "ClientToken",
    "Clients",
    "Headers",
    "InvalidProviderError",
    "Provider",
    "ProviderFile",
    "ProviderFileError",
    "ProviderFileSource",
    "ProviderKeyError",
    "ProviderType",
    "Route",
    "RouteKind",
    "RouteMatch",
    "Secret",
    "Target",
    "address_is_private",
    "find_client_token",
    "hash_key",
    "new_client_key",
    "open_provider_file",
    "parse_base_url",
    "parse_provider_file",
    "split_target",
    "swap_credentials",
]
