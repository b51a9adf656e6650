"""The tables of the store: plain SQL that both engines take, one tuple of statements a version.

Sealed columns hold encrypted JSON (`StoreTransaction.seal`); `sealed_by` names the encryption
key. Times are ISO 8601 texts in UTC: for people to read and never for order, which comes from
positions, ids and revisions, whatever a clock says. What was removed keeps its row, not its
secrets.
"""

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # One row. Every change that gateways can see moves `revision`, in its own transaction.
        """
        CREATE TABLE state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            revision BIGINT NOT NULL,
            providers_revision BIGINT NOT NULL,
            clients_revision BIGINT NOT NULL
        )
        """,
        "INSERT INTO state VALUES (1, 0, 0, 0)",
        """
        CREATE TABLE providers (
            id TEXT PRIMARY KEY,
            position BIGINT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            type TEXT NOT NULL,
            enabled INTEGER NOT NULL,
            sealed TEXT,
            sealed_by TEXT,
            created TEXT NOT NULL,
            updated TEXT NOT NULL,
            removed TEXT,
            revision BIGINT NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX providers_living ON providers (name) WHERE removed IS NULL",
        """
        CREATE TABLE clients (
            id TEXT PRIMARY KEY,
            position BIGINT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            created TEXT NOT NULL,
            removed TEXT,
            revision BIGINT NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX clients_living ON clients (name) WHERE removed IS NULL",
        # Keys of clients, gateways and admins; `owner` is the row of a client.
        """
        CREATE TABLE access_keys (
            position BIGINT PRIMARY KEY,
            id TEXT NOT NULL,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            owner TEXT,
            role TEXT,
            hash TEXT NOT NULL,
            created TEXT NOT NULL,
            revoked TEXT
        )
        """,
        "CREATE UNIQUE INDEX access_keys_good ON access_keys (kind, id) WHERE revoked IS NULL",
        "CREATE INDEX access_keys_owner ON access_keys (owner)",
        """
        CREATE TABLE audit (
            id BIGINT PRIMARY KEY,
            at TEXT NOT NULL,
            actor_kind TEXT NOT NULL,
            actor_name TEXT NOT NULL,
            action TEXT NOT NULL,
            kind TEXT NOT NULL,
            row_id TEXT NOT NULL,
            name TEXT NOT NULL,
            revision BIGINT NOT NULL,
            sealed TEXT,
            sealed_by TEXT
        )
        """,
        "CREATE INDEX audit_row_id ON audit (row_id, id)",
        "CREATE INDEX audit_name ON audit (name, id)",
        # What the last seed said of each row that it declared.
        """
        CREATE TABLE seeds (
            id TEXT PRIMARY KEY,
            kind TEXT NOT NULL,
            name TEXT NOT NULL,
            row_id TEXT NOT NULL,
            sealed TEXT,
            sealed_by TEXT
        )
        """,
        """
        CREATE TABLE gateways (
            instance TEXT PRIMARY KEY,
            gateway TEXT NOT NULL,
            key_id TEXT NOT NULL,
            session TEXT NOT NULL,
            control_plane TEXT NOT NULL,
            software TEXT NOT NULL,
            connected INTEGER NOT NULL,
            since TEXT NOT NULL,
            last_contact TEXT NOT NULL,
            revision BIGINT,
            rejected TEXT NOT NULL
        )
        """,
    ),
    (
        # The first epoch of each store; `random` is a number in both engines, of other kinds.
        "ALTER TABLE state ADD COLUMN epoch TEXT NOT NULL DEFAULT ''",
        "UPDATE state SET epoch = CAST(random() AS TEXT)",
        "CREATE TABLE epochs (id TEXT PRIMARY KEY)",
        "INSERT INTO epochs SELECT epoch FROM state",
        "ALTER TABLE gateways ADD COLUMN epoch TEXT NOT NULL DEFAULT ''",
        # Running programs, and the names of the encryption keys that they have.
        """
        CREATE TABLE programs (
            name TEXT PRIMARY KEY,
            program TEXT NOT NULL,
            keys TEXT NOT NULL,
            last_contact TEXT NOT NULL
        )
        """,
        "ALTER TABLE gateways ADD COLUMN reconnecting INTEGER NOT NULL DEFAULT 0",
    ),
    (
        # The rules of clients, and those of their keys.
        "ALTER TABLE clients ADD COLUMN rules TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE access_keys ADD COLUMN rules TEXT NOT NULL DEFAULT '{}'",
        # What requests have used, as gateways report it; see `UsageRecord`. Durations are in
        # microseconds, costs in billionths of their currency.
        """
        CREATE TABLE usage (
            id TEXT PRIMARY KEY,
            time TEXT NOT NULL,
            gateway TEXT NOT NULL,
            request_id TEXT NOT NULL,
            client TEXT NOT NULL,
            key TEXT NOT NULL,
            provider TEXT NOT NULL,
            fallback_from TEXT NOT NULL,
            upstream_key TEXT NOT NULL,
            generation BIGINT NOT NULL,
            route TEXT NOT NULL,
            model TEXT NOT NULL,
            answered_model TEXT NOT NULL,
            session TEXT NOT NULL,
            client_kind TEXT NOT NULL,
            status BIGINT NOT NULL,
            outcome TEXT NOT NULL,
            code TEXT NOT NULL,
            input_tokens BIGINT,
            output_tokens BIGINT,
            cached_read_tokens BIGINT,
            cached_write_tokens BIGINT,
            reasoning_tokens BIGINT,
            cost BIGINT,
            currency TEXT NOT NULL,
            complete INTEGER NOT NULL,
            tools TEXT NOT NULL,
            finish TEXT NOT NULL,
            response_id TEXT NOT NULL,
            first_byte_ms BIGINT,
            duration_ms BIGINT NOT NULL,
            attempts BIGINT NOT NULL
        )
        """,
        "CREATE INDEX usage_time ON usage (time)",
        # Random with each revision: see `Revisions.mark`.
        "ALTER TABLE state ADD COLUMN mark TEXT NOT NULL DEFAULT ''",
        # What gateways do with the providers' keys.
        "ALTER TABLE gateways ADD COLUMN provider_keys TEXT",
        "ALTER TABLE gateways ADD COLUMN keys_reported TEXT",
        "ALTER TABLE gateways ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0",
        # What control planes have drawn of clients' budgets, by day or month, in millionths; see
        # `Draw`. The columns `period` and `until` are seconds since the epoch.
        """
        CREATE TABLE budgets (
            period BIGINT NOT NULL,
            scope TEXT NOT NULL,
            id TEXT NOT NULL,
            rule TEXT NOT NULL,
            until BIGINT NOT NULL,
            spent BIGINT NOT NULL,
            PRIMARY KEY (period, scope, id, rule)
        )
        """,
        # What a gateway with the store itself does with the providers' keys.
        "ALTER TABLE programs ADD COLUMN provider_keys TEXT",
        # Whether the price of a record is that of unknown models.
        "ALTER TABLE usage ADD COLUMN priced_as_unknown INTEGER NOT NULL DEFAULT 0",
    ),
)
