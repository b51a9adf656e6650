"""What the command line needs of a control plane, over the control plane's API."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
import httpx2
import msgspec

from bridgepool._errors import BridgePoolError
from bridgepool.control.admin import KeyKind
from bridgepool.control.applied import AppliedReport, GatewayApplied
from bridgepool.control.documents import draft_document
from bridgepool.control.records import (
    AccessKeyView,
    AppliedProvider,
    ApplyResult,
    AuditEntry,
    Change,
    ClientView,
    GatewaySession,
    KeyRef,
    KeyValue,
    NewClient,
    NewKey,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Role,
)
from bridgepool.providers import Secret

T = TypeVar("T")
# JSON has no closer static type; what is used of it is converted to a view first.
Document = Mapping[str, Any]

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
class HttpAdmin:
    """An `Admin` over HTTP. See there for the methods."""

    _client: httpx2.AsyncClient

    async def list_providers(self) -> Sequence[ProviderView]:
        """See `Admin`."""
        return _all(ProviderView, (await self._get("providers"))["providers"])

    async def get_provider(self, name: str) -> ProviderView:
        """See `Admin`."""
        return _one(ProviderView, (await self._get(f"providers/{_part(name)}"))["provider"])

    async def add_provider(self, draft: ProviderDraft) -> Change[ProviderView]:
        """See `Admin`."""
        answer = await self._send("POST", "providers", _body(draft))
        return _change(answer, _one(ProviderView, answer["provider"]))

    async def update_provider(self, name: str, patch: ProviderPatch) -> Change[ProviderView]:
        """See `Admin`."""
        answer = await self._send("PATCH", f"providers/{_part(name)}", _body(patch))
        return _change(answer, _one(ProviderView, answer["provider"]))

    async def remove_provider(self, name: str) -> Change[ProviderView]:
        """See `Admin`."""
        answer = await self._send("DELETE", f"providers/{_part(name)}")
        return _change(answer, _one(ProviderView, answer["provider"]))

    async def apply_providers(
        self, drafts: Sequence[ProviderDraft], *, prune: bool, dry_run: bool
    ) -> ApplyResult:
        """See `Admin`."""
        body = {"providers": [_body(one) for one in drafts], "prune": prune, "dry_run": dry_run}
        answer = await self._send("POST", "apply", body)
        providers = _all(AppliedProvider, answer["providers"])
        return ApplyResult(answer["revision"], answer["changed"], providers)

    async def export_providers(self) -> Sequence[ProviderDraft]:
        """See `Admin`."""
        return [_draft(row) for row in (await self._get("export"))["providers"]]

    async def list_clients(self) -> Sequence[ClientView]:
        """See `Admin`."""
        return _all(ClientView, (await self._get("clients"))["clients"])

    async def add_client(self, client: str) -> Change[NewClient]:
        """See `Admin`."""
        answer = await self._send("POST", "clients", {"id": client})
        key = Secret(answer["key"]) if answer["key"] else None
        return _change(answer, NewClient(_one(ClientView, answer["client"]), key))

    async def remove_client(self, client: str) -> Change[ClientView]:
        """See `Admin`."""
        answer = await self._send("DELETE", f"clients/{_part(client)}")
        return _change(answer, _one(ClientView, answer["client"]))

    async def add_client_key(self, client: str) -> Change[NewKey]:
        """See `Admin`."""
        return _new_key(await self._send("POST", f"clients/{_part(client)}/keys"))

    async def revoke_client_key(self, client: str, key: str) -> Change[AccessKeyView]:
        """See `Admin`."""
        answer = await self._send("DELETE", f"clients/{_part(client)}/keys/{_part(key)}")
        return _change(answer, _one(AccessKeyView, answer["access_key"]))

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """See `Admin`."""
        answer = await self._get(f"{kind}-keys", {"revoked": "true"} if revoked else None)
        return _all(AccessKeyView, answer["keys"])

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> Change[NewKey]:
        """See `Admin`."""
        body = {"name": name} if kind == "gateway" else {"name": name, "role": role}
        return _new_key(await self._send("POST", f"{kind}-keys", body))

    async def revoke_key(self, kind: KeyKind, key: str) -> Change[AccessKeyView]:
        """See `Admin`."""
        answer = await self._send("DELETE", f"{kind}-keys/{_part(key)}")
        return _change(answer, _one(AccessKeyView, answer["access_key"]))

    async def list_gateways(self) -> tuple[int, Sequence[GatewaySession]]:
        """See `Admin`."""
        answer = await self._get("gateways")
        return answer["revision"], _all(GatewaySession, answer["gateways"])

    async def applied(self, revision: int, wait: float) -> AppliedReport:
        """See `Admin`."""
        while True:
            part = min(wait, _LONGEST_WAIT)
            query = {"wait": f"{part:g}"}
            answer = await self._get(f"revisions/{revision}/applied", query, part)
            wait -= part
            if answer["complete"] or wait <= 0:
                return AppliedReport(revision, _all(GatewayApplied, answer["gateways"]))

    async def audit(
        self, *, limit: int, before: int | None, name: str | None
    ) -> Sequence[AuditEntry]:
        """See `Admin`."""
        query = {"limit": str(limit)}
        if before is not None:
            query["before"] = str(before)
        if name is not None:
            query["name"] = name
        return _all(AuditEntry, (await self._get("audit", query))["entries"])

    async def _get(
        self, path: str, query: Mapping[str, str] | None = None, patience: float = 0.0
    ) -> Document:
        return await self._ask("GET", path, query, None, patience)

    async def _send(self, method: str, path: str, body: object = None) -> Document:
        return await self._ask(method, path, None, body, 0.0)

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object,
        patience: float,
    ) -> Document:
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
        url: Where its API is, such as ``https://control.example:8081``.
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


def _understand(response: httpx2.Response) -> Document:
    try:
        document: Document = response.json()
        if response.is_success:
            return document
        error = document["error"]
        raise AdminError(error["code"], error["message"], error.get("problems", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise AdminError(
        "not_understood",
        f"{response.url.copy_with(query=None)} answered {response.status_code}, but not as a "
        "control plane does; is that its --listen address?",
    )


def _part(name: str) -> str:
    return quote(name, safe="")


def _one(kind: type[T], value: object) -> T:
    return msgspec.convert(value, kind)


def _all(kind: type[T], values: Sequence[object]) -> tuple[T, ...]:
    return tuple(msgspec.convert(value, kind) for value in values)


def _change(answer: Document, value: T) -> Change[T]:
    return Change(answer["revision"], answer["changed"], value)


def _new_key(answer: Document) -> Change[NewKey]:
    view = _one(AccessKeyView, answer["access_key"])
    return _change(answer, NewKey(view, Secret(answer["key"])))


def _body(change: ProviderDraft | ProviderPatch) -> dict[str, object]:
    document = draft_document(change)
    if isinstance(change.headers, Mapping):
        document["headers"] = {
            name: None if value is None else value.reveal()
            for name, value in change.headers.items()
        }
    return document


def _draft(row: Document) -> ProviderDraft:
    keys = [
        KeyRef(key["id"]) if "id" in key else KeyValue(Secret(key["value"])) for key in row["keys"]
    ]
    headers = {
        name: None if text is None else Secret(text) for name, text in row["headers"].items()
    }
    plain = {name: value for name, value in row.items() if name not in ("keys", "headers")}
    return ProviderDraft(keys=tuple(keys), headers=headers, **plain)
