"""Clients of the programs that do not load the certificates of the system, 35 ms for each."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def plain_client(
    base_url: str = "", context: ssl.SSLContext | None = None, **options: Any
) -> httpx2.AsyncClient:
    """Return a client of ``http://`` URLs, or with a context of others."""
    return httpx2.AsyncClient(base_url=base_url, verify=context or _TRUSTS_NOBODY, **options)
