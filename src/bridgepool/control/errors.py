"""What can be wrong with a change or a question to the store."""

from bridgepool._errors import BridgePoolError


class StoreError(BridgePoolError):
    """The base of what the store raises. The text never holds a secret or a base URL."""


class NotFoundError(StoreError):
    """There is nothing living of that name or id.

    Args:
        kind: What was looked for, such as ``provider``.
        name: The name or id it was looked for by.
    """

    status_hint = 404

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind
        self.name = name


class NameTakenError(StoreError):
    """Something living has that name already; remove or rename it first, or take another.

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
    """The row has changed since you read it; read it again and decide anew.

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
        self.name = name
        self.expected = expected
        self.actual = actual


class InvalidChangeError(StoreError):
    """What was asked for breaks a rule, so nothing was changed.

    Args:
        problems: Each names the field and says what is wrong with it; no values.
    """

    status_hint = 422

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
