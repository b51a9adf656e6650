"""What the command line needs of a control plane, over the control plane's API."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import attrs
import httpx2
import msgspec

from bridgepool._errors import BridgePoolError
from bridgepool._secret import Secret
from bridgepool.gateway.control._applied import AppliedReport, GatewayApplied
from bridgepool.gateway.control._documents import draft_document, parse_draft
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    ApplyResult,
    AuditEntry,
    ClientChange,
    ClientView,
    GatewaySession,
    NewClient,
    NewKey,
    ProviderChange,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Role,
)
from bridgepool.gateway.control.admin._interface import KeyKind

T = TypeVar("T")

_TIMEOUT = 30.0
_LONGEST_WAIT = 60.0  # that one request may ask for


class AdminError(BridgePoolError):
    """The control plane refused, or could not be asked; says what to do.

    Args:
        code: As in its API, or ``unreachable``, or ``not_understood``.
        message: What is wrong.
        problems: Field by field, where it is about a change.
    """

    def __init__(self, code: str, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__("; ".join((message, *problems)))
        self.code = code
        self.problems = tuple(problems)


@attrs.frozen
class _Refusal:
    code: str
    message: str
    problems: tuple[str, ...] = ()


@attrs.frozen
class _Answer:
    """The JSON of one answer, of which each part is checked as it is taken."""

    document: Mapping[str, object]
    _where: str

    def one(self, kind: type[T], name: str) -> T:
        try:
            return msgspec.convert(self.document.get(name), kind)
        except ValueError:
            raise self.not_understood() from None

    def all(self, kind: type[T], name: str) -> tuple[T, ...]:
        try:
            rows = self.one(list, name)
            return tuple(msgspec.convert(row, kind) for row in rows)
        except ValueError:
            raise self.not_understood() from None

    def whole(self, kind: type[T]) -> T:
        try:
            return msgspec.convert(self.document, kind, dec_hook=_secret)
        except ValueError:
            raise self.not_understood() from None

    def not_understood(self) -> AdminError:
        return AdminError(
            "not_understood",
            f"{self._where} gave no answer of a control plane of this version; is that its "
            "--listen address?",
        )


@attrs.frozen
class HttpAdmin:
    """An `Admin` over HTTP. See there for the methods."""

    _client: httpx2.AsyncClient

    async def list_providers(self) -> Sequence[ProviderView]:
        """See `Admin`."""
        return (await self._get("providers")).all(ProviderView, "providers")

    async def get_provider(self, name: str) -> ProviderView:
        """See `Admin`."""
        return (await self._get(f"providers/{_part(name)}")).one(ProviderView, "provider")

    async def add_provider(self, draft: ProviderDraft) -> ProviderChange:
        """See `Admin`."""
        answer = await self._send("POST", "providers", _body(draft))
        return answer.whole(ProviderChange)

    async def update_provider(self, name: str, patch: ProviderPatch) -> ProviderChange:
        """See `Admin`."""
        answer = await self._send("PATCH", f"providers/{_part(name)}", _body(patch))
        return answer.whole(ProviderChange)

    async def remove_provider(self, name: str) -> ProviderChange:
        """See `Admin`."""
        answer = await self._send("DELETE", f"providers/{_part(name)}")
        return answer.whole(ProviderChange)

    async def apply_providers(
        self, drafts: Sequence[ProviderDraft], *, prune: bool, dry_run: bool
    ) -> ApplyResult:
        """See `Admin`."""
        body = {"providers": [_body(one) for one in drafts], "prune": prune, "dry_run": dry_run}
        answer = await self._send("POST", "apply", body)
        return answer.whole(ApplyResult)

    async def export_providers(self) -> Sequence[ProviderDraft]:
        """See `Admin`."""
        answer = await self._get("export")
        return [_draft(row, answer) for row in answer.all(dict, "providers")]

    async def list_clients(self) -> Sequence[ClientView]:
        """See `Admin`."""
        return (await self._get("clients")).all(ClientView, "clients")

    async def add_client(self, client: str) -> NewClient:
        """See `Admin`."""
        answer = await self._send("POST", "clients", {"id": client})
        return answer.whole(NewClient)

    async def remove_client(self, client: str) -> ClientChange:
        """See `Admin`."""
        answer = await self._send("DELETE", f"clients/{_part(client)}")
        return answer.whole(ClientChange)

    async def add_client_key(self, client: str) -> NewKey:
        """See `Admin`."""
        return (await self._send("POST", f"clients/{_part(client)}/keys")).whole(NewKey)

    async def revoke_client_key(self, client: str, key: str) -> AccessKeyChange:
        """See `Admin`."""
        answer = await self._send("DELETE", f"clients/{_part(client)}/keys/{_part(key)}")
        return answer.whole(AccessKeyChange)

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """See `Admin`."""
        answer = await self._get(f"{kind}-keys", {"revoked": "true"} if revoked else None)
        return answer.all(AccessKeyView, "keys")

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> NewKey:
        """See `Admin`."""
        body = {"name": name} if kind == "gateway" else {"name": name, "role": role}
        return (await self._send("POST", f"{kind}-keys", body)).whole(NewKey)

    async def revoke_key(self, kind: KeyKind, key: str) -> AccessKeyChange:
        """See `Admin`."""
        answer = await self._send("DELETE", f"{kind}-keys/{_part(key)}")
        return answer.whole(AccessKeyChange)

    async def list_gateways(self) -> tuple[int, Sequence[GatewaySession]]:
        """See `Admin`."""
        answer = await self._get("gateways")
        return answer.one(int, "revision"), answer.all(GatewaySession, "gateways")

    async def applied(self, revision: int, wait: float) -> AppliedReport:
        """See `Admin`."""
        while True:
            part = min(wait, _LONGEST_WAIT)
            query = {"wait": f"{part:g}"}
            answer = await self._get(f"revisions/{revision}/applied", query, part)
            wait -= part
            if answer.one(bool, "complete") or wait <= 0:
                return AppliedReport(revision, answer.all(GatewayApplied, "gateways"))

    async def audit(
        self, *, limit: int, before: int | None, name: str | None
    ) -> Sequence[AuditEntry]:
        """See `Admin`."""
        query = {"limit": str(limit)}
        if before is not None:
            query["before"] = str(before)
        if name is not None:
            query["name"] = name
        return (await self._get("audit", query)).all(AuditEntry, "entries")

    async def _get(
        self, path: str, query: Mapping[str, str] | None = None, patience: float = 0.0
    ) -> _Answer:
        return await self._ask("GET", path, query, None, patience)

    async def _send(self, method: str, path: str, body: object = None) -> _Answer:
        return await self._ask(method, path, None, body, 0.0)

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object,
        patience: float,
    ) -> _Answer:
        try:
            response = await self._client.request(
                method,
                f"/api/v1/{path}",
                params=query,
                json=body,
                timeout=_TIMEOUT + patience,
            )
        except httpx2.HTTPError as error:
            raise AdminError(
                "unreachable",
                f"the control plane at {self._client.base_url} gave no answer "
                f"({type(error).__name__}); is it running, and is that its --listen address?",
            ) from None
        return _understand(response)


@asynccontextmanager
async def open_http_admin(
    url: str, key: Secret, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpAdmin]:
    """Open the API of a running control plane.

    Args:
        url: Where its API is, such as ``https://control.example:8180``.
        key: An admin key.
        ssl_context: For ``https``; the default trusts what the operating system trusts.
    """
    verify: ssl.SSLContext | bool = ssl_context if ssl_context is not None else True
    async with httpx2.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key.reveal()}"},
        verify=verify,
        trust_env=False,  # a proxy of the environment is for the world outside
    ) as client:
        yield HttpAdmin(client)


def _understand(response: httpx2.Response) -> _Answer:
    answer = _Answer({}, f"{response.url.copy_with(query=None)} ({response.status_code})")
    try:
        document = msgspec.convert(response.json(), dict[str, object])
    except ValueError:  # msgspec's errors are of its kind
        raise answer.not_understood() from None
    if response.is_success:
        return attrs.evolve(answer, document=document)
    error = attrs.evolve(answer, document=document).one(_Refusal, "error")
    raise AdminError(error.code, error.message, error.problems)


def _part(name: str) -> str:
    return quote(name, safe="")


def _secret(kind: type, value: object) -> Secret:
    if kind is not Secret or not isinstance(value, str):
        raise ValueError("is not a secret")
    return Secret(value)


def _body(change: ProviderDraft | ProviderPatch) -> dict[str, object]:
    document = draft_document(change)
    if isinstance(change.headers, Mapping):
        document["headers"] = {
            name: None if value is None else value.reveal()
            for name, value in change.headers.items()
        }
    return document


def _draft(row: Mapping[str, object], answer: _Answer) -> ProviderDraft:
    """Read a draft of an export, in which null keeps a header."""
    headers = row.get("headers")
    if isinstance(headers, Mapping):
        keeping = {name: {"keep": True} if text is None else text for name, text in headers.items()}
        row = {**row, "headers": keeping}
    try:
        return parse_draft(row)
    except InvalidChangeError:
        raise answer.not_understood() from None
