"""The control plane: the store that owns the providers, its API, and its service for gateways.

`docs/design.md` lists its parts. Names are imported on first use: a client of the API needs no
store.
"""

from typing import TYPE_CHECKING

from bridgepool._lazy import find_name

if TYPE_CHECKING:
    from bridgepool.gateway.control._applied import AppliedReport, Expected, GatewayApplied
    from bridgepool.gateway.control._embedded import StoreProviders, open_store_providers
    from bridgepool.gateway.control._encryption import (
        EncryptionKeys,
        add_encryption_key,
        drop_old_encryption_keys,
        find_encryption_keys,
        generate_encryption_key,
        parse_encryption_keys,
        promote_encryption_key,
        read_encryption_keys,
    )
    from bridgepool.gateway.control._errors import (
        CommitUnknownError,
        ConflictError,
        EncryptionError,
        InvalidChangeError,
        NameTakenError,
        NewerSchemaError,
        NotFoundError,
        StoreBrokenError,
        StoreError,
        StoreUnavailableError,
    )
    from bridgepool.gateway.control._gateway_service import GatewayBackend, open_gateway_service
    from bridgepool.gateway.control._gateway_session import GatewaySession
    from bridgepool.gateway.control._hub import Hub, HubStatus, open_hub
    from bridgepool.gateway.control._limit_shares import LimitShares
    from bridgepool.gateway.control._memory import MemoryBackend
    from bridgepool.gateway.control._records import (
        AccessKeyChange,
        AccessKeyView,
        Actor,
        AppliedProvider,
        ApplyResult,
        AuditEntry,
        ClientChange,
        ClientView,
        Drift,
        EpochChange,
        GatewayKey,
        KeyRef,
        KeyValue,
        KeyView,
        NewClient,
        NewKey,
        ProviderChange,
        ProviderDraft,
        ProviderPatch,
        ProviderView,
        RotationReport,
        SeedReport,
        StoreSnapshot,
    )
    from bridgepool.gateway.control._revisions import Revisions
    from bridgepool.gateway.control._usage import UsageFilter, UsagePage, UsageReport, UsageSum
    from bridgepool.gateway.control.operations._http_admin import AdminError
    from bridgepool.gateway.control.store import (
        GatewayExpiry,
        Programs,
        RunningProgram,
        Store,
        StoredUsage,
        open_store,
    )

__all__ = [
    "AccessKeyChange",
    "AccessKeyView",
    "Actor",
    "AdminError",
    "AppliedProvider",
    "AppliedReport",
    "ApplyResult",
    "AuditEntry",
    "ClientChange",
    "ClientView",
    "CommitUnknownError",
    "ConflictError",
    "Drift",
    "EncryptionError",
    "EncryptionKeys",
    "EpochChange",
    "Expected",
    "GatewayApplied",
    "GatewayBackend",
    "GatewayExpiry",
    "GatewayKey",
    "GatewaySession",
    "Hub",
    "HubStatus",
    "InvalidChangeError",
    "KeyRef",
    "KeyValue",
    "KeyView",
    "LimitShares",
    "MemoryBackend",
    "NameTakenError",
    "NewClient",
    "NewKey",
    "NewerSchemaError",
    "NotFoundError",
    "Programs",
    "ProviderChange",
    "ProviderDraft",
    "ProviderPatch",
    "ProviderView",
    "Revisions",
    "RotationReport",
    "RunningProgram",
    "SeedReport",
    "Store",
    "StoreBrokenError",
    "StoreError",
    "StoreProviders",
    "StoreSnapshot",
    "StoreUnavailableError",
    "StoredUsage",
    "UsageFilter",
    "UsagePage",
    "UsageReport",
    "UsageSum",
    "add_encryption_key",
    "drop_old_encryption_keys",
    "find_encryption_keys",
    "generate_encryption_key",
    "open_gateway_service",
    "open_hub",
    "open_store",
    "open_store_providers",
    "parse_encryption_keys",
    "promote_encryption_key",
    "read_encryption_keys",
]

_MODULES = (
    "_applied",
    "_embedded",
    "_encryption",
    "_errors",
    "_gateway_service",
    "_gateway_session",
    "_hub",
    "_limit_shares",
    "_memory",
    "_records",
    "_revisions",
    "_usage",
    "operations._http_admin",
    "store",
)


def __getattr__(name: str) -> object:
    return find_name(__name__, name, __all__, _MODULES)
