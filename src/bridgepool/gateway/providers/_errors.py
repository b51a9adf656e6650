"""The errors of providers, their keys, clients and the provider file."""

from bridgepool._errors import BridgePoolError, ReloadError


class InvalidProviderError(BridgePoolError, ValueError):
    """A field of a provider or client is not usable.

    Raised by the constructors of `Provider` and `Client`; a provider file wraps it in a
    `ProviderFileError` that says where the row stands. The text never repeats a secret, nor a
    base URL (which may hold a password).

    Args:
        field: The field as it is written in a provider file, such as ``base_url``.
        problem: What is wrong with it, without the field's name.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnreadableProviderError(BridgePoolError):
    """The source of a provider cannot read or use it; the text says why.

    For instance a control plane without the encryption key of that provider.
    """

    status_hint = 503


class ProviderKeyError(BridgePoolError):
    """The environment variable that should hold a provider's key is not usable.

    Raised by `Provider.resolve_keys`, so when a runtime is built and not when the file is
    read: a variable that is not set affects that provider alone.

    Args:
        provider: The provider's name.
        variable: The variable's name.
        problem: What is wrong with it, such as ``is not set``.
    """

    status_hint = 503

    def __init__(self, provider: str, variable: str, problem: str) -> None:
        super().__init__(f"provider {provider!r}: environment variable {variable} {problem}")
        self.provider = provider
        self.variable = variable
        self.problem = problem


class AuthorizationUnavailableError(BridgePoolError):
    """The key cannot be verified: the authority is unreachable.

    Raised by an authorizer that asks a control plane, for a key that it has no answer for.
    The gateway answers 503 with ``Retry-After``, never 401: the key may be good.

    Args:
        retry_after: Seconds after which a retry may succeed.
    """

    status_hint = 503

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__("the key cannot be verified: the authority is unreachable")
        self.retry_after = retry_after


class ProviderFileError(ReloadError):
    """A provider file cannot be read, parsed or used; the providers in force stay.

    Args:
        path: The file as the user named it.
        problems: What is wrong; each names the line, or the row and its field. No secrets.
    """

    def __init__(self, path: str, *problems: str) -> None:
        super().__init__(f"{path}: {'; '.join(problems)}")
        self.path = path
        self.problems = problems
