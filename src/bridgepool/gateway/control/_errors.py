"""The errors of the store."""

from bridgepool._errors import BridgePoolError


class StoreError(BridgePoolError):
    """The base of what the store raises. The text never holds a secret or a base URL."""


class StoreUrlError(StoreError, ValueError):
    """A store's URL is of an unknown kind. The text does not repeat it."""

    def __init__(
        self, problem: str = "a store is a path, sqlite:path or postgresql://user@host/name"
    ) -> None:
        super().__init__(problem)


class NotFoundError(StoreError):
    """Nothing has that name or id, or it was removed.

    Args:
        kind: What was looked for, such as ``provider``.
        name: The name or id it was looked for by.
    """

    status_hint = 404

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind


class NameTakenError(StoreError):
    """The name is in use: remove or rename what has it, or choose another.

    Args:
        kind: What has it, such as ``provider``.
        name: The name.
    """

    status_hint = 409

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"the name {name!r} is taken by another {kind}")
        self.kind = kind
        self.name = name


class ConflictError(StoreError):
    """The row has changed since you read it; read it again and decide again.

    Args:
        kind: What has changed, such as ``provider``.
        name: Its name.
        expected: The revision of the row that the change was meant for.
        actual: The revision of the row as it is.
    """

    status_hint = 409

    def __init__(self, kind: str, name: str, expected: int, actual: int) -> None:
        super().__init__(
            f"{kind} {name!r} was changed at revision {actual}, after the revision {expected} "
            "that this change was meant for; read it again"
        )
        self.kind = kind
        self.actual = actual


class InvalidChangeError(StoreError):
    """The change breaks a rule; nothing was changed.

    Args:
        problems: Each names the field and says what is wrong with it; no values.
    """

    status_hint = 422

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreUnavailableError(StoreError):
    """The database cannot be used now: away, locked, full, damaged, not writable.

    The text says what is wrong and what to do. Nothing was changed, and another attempt
    may succeed without a restart.
    """

    status_hint = 503


class NotWritableError(StoreUnavailableError):
    """The database can be reached, and cannot be written: read-only, a standby, a full disk."""


class CommitUnknownError(StoreUnavailableError):
    """The connection broke while a change was being committed: it was made, or it was not.

    Read before you try again.
    """

    def __init__(self) -> None:
        super().__init__(
            "the connection to the database broke during the commit; the change may have been "
            "made or not: look before you try again"
        )


class StoreBrokenError(StoreError):
    """The database rejected a valid statement, for instance because a table is missing.

    Nothing was changed, and no other attempt will succeed. Report it to the operator, not to the
    caller.

    Args:
        where: Which store.
        problem: What the database said, without values.
    """

    status_hint = 500

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(
            f"{where} does not hold what bridgepool needs ({problem}): its tables were changed by "
            "something else, or bridgepool has a fault; put a backup in its place, or report it"
        )


class NewerSchemaError(StoreError):
    """The database was migrated by a newer bridgepool than this one.

    Args:
        found: The version of its tables.
        known: The newest version that this program knows.
    """

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"the tables of this store are of version {found}, and this bridgepool knows them up "
            f"to version {known}: run the bridgepool that made them, or a newer one"
        )


class EncryptionError(StoreError):
    """Something cannot be decrypted, or the encryption keys cannot be used; says what to do."""
