"""curl against the real gateway process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import run_gateway

if shutil.which("curl") is None and not os.environ.get("CI"):
    pytest.skip("curl is not installed here; CI has it", allow_module_level=True)

BODY = json.dumps({"model": "m"})
STREAM = json.dumps({"model": "m", "stream": True})


@attrs.frozen
class Curled:
    exit_status: int
    output: str
    trace: str


async def curl(*arguments: str) -> Curled:
    """Run curl; `--fail-with-body` makes its exit status tell of HTTP errors."""
    done = await trio.run_process(
        ["curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    return Curled(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_blocking_and_streaming_calls(north: SimulatedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with run_gateway(file) as gateway:
        url = f"{gateway.url}/ai/v1/chat/completions"
        whole = await curl(url, "--json", BODY)
        assert whole.exit_status == 0
        assert json.loads(whole.output)["model"] == "m@north"
        stream = await curl("--no-buffer", url, "--json", STREAM)
        assert stream.exit_status == 0
        assert stream.output.count('"content"') == len(WORDS)
        assert stream.output.endswith("data: [DONE]\n\n")


async def test_errors(north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    client_row, key = client_row_and_key("ada")
    write(
        file,
        provider("ai", "openai", north.openai_url),
        provider("off", "openai", north.openai_url, enabled=False),
        provider("broken", "openai", north.openai_url, key_env="BRIDGEPOOL_TEST_NOT_SET"),
        provider("gone", "openai", south.openai_url),
        client_row,
    )
    south.scope.cancel()
    async with run_gateway(file) as gateway:

        async def code(name: str, client_key: str = key) -> str:
            found = await curl(
                f"{gateway.url}/{name}/v1/chat/completions",
                "--json",
                BODY,
                "--oauth2-bearer",
                client_key,
            )
            assert found.exit_status == 22
            return str(json.loads(found.output)["error"]["code"])

        assert await code("off") == "provider_disabled"
        assert await code("broken") == "provider_misconfigured"
        assert await code("nobody") == "unknown_provider"
        assert await code("gone") == "upstream_unreachable"
        assert await code("ai", "wrong") == "invalid_api_key"


async def test_a_cut_stream_is_an_error_to_curl(north: SimulatedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    north.cut_after = 2
    async with run_gateway(file) as gateway:
        found = await curl("--no-buffer", f"{gateway.url}/ai/v1/chat/completions", "--json", STREAM)
    assert found.exit_status in (18, 56), "curl took it for complete"
    assert found.output.count('"content"') == 2
    assert '"code":"upstream_cut"' in found.output


async def test_https(north: SimulatedUpstream, tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    trusted, chain, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(trusted)
    certificate.private_key_pem.write_to_path(key)
    for part in certificate.cert_chain_pems:
        part.write_to_path(chain, append=True)
    options = ("--tls-cert", str(chain), "--tls-key", str(key))
    async with run_gateway(file, *options) as gateway:
        port = gateway.address.rpartition(":")[2]
        assert gateway.url.startswith("https://")
        url = f"https://localhost:{port}/ai/v1/chat/completions"
        found = await curl("--cacert", str(trusted), "--ipv4", url, "--json", BODY)
        assert found.exit_status == 0
        assert json.loads(found.output)["model"] == "m@north"
        assert (await curl(url, "--ipv4", "--json", BODY)).exit_status == 60


def test_curl_is_there() -> None:
    subprocess.run(["curl", "--version"], check=True, capture_output=True)
