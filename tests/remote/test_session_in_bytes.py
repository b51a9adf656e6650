"""The session that the page of the protocol shows in bytes is one that is really spoken.

When something of it changes on purpose: correct the files in `vectors/session`, and copy what
`described.describe` makes of them to the page.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway import _protocol as gateway
from bridgepool.gateway.control import MemoryBackend, open_gateway_service
from bridgepool.gateway.providers import Client, Clients, hash_key, new_client_key
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS
from bridgepool.gateway.providers._wire import ALWAYS_SENT, ProviderRow
from bridgepool.remote import _codec as codec
from bridgepool.remote import _messages as messages
from bridgepool.transports.websocket import serve_websockets

from .described import describe
from .foreign import ForeignClient, open_foreign_client, unpack

_FOLDER = Path(__file__).parent / "vectors" / "session"
_PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
_KINDS = {**vars(messages), **vars(gateway)}
_STEPS = sorted(_FOLDER.glob("*.json"))
_REQUEST, _RESPONSE = ((_FOLDER / f"{name}.txt").read_text() for name in ("request", "response"))


def _step(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_page_shows_exactly_this_session() -> None:
    section = _PAGE.partition("\n## A session in bytes\n")[2]
    blocks = re.findall(r"^```text\n(.*?)^```$", section, re.S | re.M)
    frames = [describe(bytes.fromhex(_step(path)["hex"])) + "\n" for path in _STEPS]
    assert blocks == [_REQUEST, _RESPONSE, *frames]


def test_the_page_says_who_sends_each_frame() -> None:
    section = _PAGE.partition("\n## A session in bytes\n")[2]
    said = re.findall(r"^\*\*The (gateway|control plane)\*\* (?!connects|accepts)", section, re.M)
    assert said == [_step(path)["from"] for path in _STEPS]


@pytest.mark.parametrize("path", _STEPS, ids=lambda path: path.stem)
def test_the_bytes_are_those_that_are_written_here(path: Path) -> None:
    step = _step(path)
    data = bytes.fromhex(step["hex"])
    frame = codec.decode_frame(data)
    kind: Any = _KINDS.get(step.get("message", ""))
    assert unpack(data) == step["frame"]
    if isinstance(frame, codec.Response) and frame.error is not None:
        written = codec.encode_error(frame.id, frame.error.code, frame.error.message)
    elif isinstance(frame, codec.Response):
        written = codec.encode_result(frame.id, codec.decode(frame.result, kind))
    elif isinstance(frame, codec.Request):
        params = codec.decode(frame.params[0], kind) if kind is not None else {}
        written = codec.encode_request(frame.id, frame.method, params)
    else:
        written = codec.encode_notice(frame.method, codec.decode(frame.params[0], kind))
    assert written == data


def test_the_key_on_the_page_has_the_form_of_one() -> None:
    [key] = re.findall(r"Bearer (\S+)", _REQUEST)
    assert GATEWAY_KEYS.id_of(key.encode()) is not None


async def _shake_hands(client: ForeignClient, key: Secret) -> None:
    request = re.sub(r"Bearer \S+", f"Bearer {key.reveal()}", _REQUEST)
    await client.stream.send_all(request.replace("\n", "\r\n").encode())
    expected, got = _RESPONSE.replace("\n", "\r\n").encode(), b""
    while len(got) < len(expected):
        got += await client.stream.receive_some()
    assert got == expected


async def test_a_control_plane_answers_the_bytes_of_the_page_as_the_page_says() -> None:
    backend = MemoryBackend(epoch="2f41")
    [added] = _step(_FOLDER / "09-changed.json")["frame"][2][0]["rows"]
    body = added["body"]
    row = ProviderRow(
        **{name: body[name] for name in ("id", "name", "type", "base_url")},
        keys=tuple(Secret(key) for key in body["keys"]),
    )
    own = {"session": "", "software": ""}  # of each session, and of each version
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(60):
        async with (
            trio.open_nursery() as nursery,
            open_foreign_client(listeners[0].socket.getsockname()[1]) as client,
        ):
            async with open_gateway_service(backend) as service:

                async def serve(task_status: trio.TaskStatus[Any]) -> None:
                    await serve_websockets(
                        service.serve, listeners, admit=service.admit, task_status=task_status
                    )

                await nursery.start(serve)
                await _shake_hands(client, backend.add_gateway_key("front-1"))
                for path in _STEPS[:-1]:
                    step = _step(path)
                    if path.stem == "09-changed":
                        backend.set_rows([row])
                    if path.stem == "11-clients-changed":
                        hashed = hash_key(new_client_key())
                        backend.set_clients(Clients([Client(id="ann", key_hashes=(hashed,))]))
                    if step["from"] == "gateway":
                        await client.send(bytes.fromhex(step["hex"]))
                        continue
                    answer, expected = await client.receive(), step["frame"]
                    if path.stem == "02-hello-answer":
                        answer[3] |= own
                        expected[3] |= own
                    assert answer == expected, path.stem
            assert await client.receive() == _step(_STEPS[-1])["frame"]
            assert await client.receive() is None
            nursery.cancel_scope.cancel()
    assert client.closed in (1000, 1001)


def test_every_field_that_is_always_sent_is_shown() -> None:
    [added] = _step(_FOLDER / "09-changed.json")["frame"][2][0]["rows"]
    assert set(added["body"]) == {"id", *ALWAYS_SENT}
