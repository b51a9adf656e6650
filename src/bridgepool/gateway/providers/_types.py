"""The provider types that a gateway knows by default."""

from typing import Final

from bridgepool.gateway.providers._anthropic import ANTHROPIC
from bridgepool.gateway.providers._openai import OPENAI
from bridgepool.gateway.providers._provider_type import ProviderType

PROVIDER_TYPES: Final[tuple[ProviderType, ...]] = (OPENAI, ANTHROPIC)
"""The default of every parameter ``types``."""
