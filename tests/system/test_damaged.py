"""Damaged and oversized messages between a gateway and its control plane, with TLS and without.

TCP's own checksum lets hardly any damage through, and TLS none. Without TLS, damage that leaves a
sound message with another number in it cannot be told from the truth: so it is here what cannot
be part of a sound message, and with TLS everything.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import attrs
import pytest
import trustme

from bridgepool.testing import Toward
from tests.gateway.control.stores import ADA, draft
from tests.system.faulty import LINE, open_world
from tests.waiting import wait_until


@pytest.mark.parametrize("toward", [Toward.TARGET, Toward.CLIENT])
@pytest.mark.parametrize("skip", [0, 7, 40])
async def test_damaged_bytes_cost_the_connection_and_no_more(
    tmp_path: Path, toward: Toward, skip: int
) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.proxy.corrupt(30, skip=skip, toward=toward)
        await world.point_at(world.south)
        await front.converge(world.south, f"30 damaged bytes after {skip} toward {toward}")
        await world.point_at(world.north)
        await front.converge(world.north, "that was over")


async def test_with_tls_any_damage_anywhere_costs_the_connection_and_no_more(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        open_world(tmp_path, context=context, ca_file=ca_file) as world,
        world.loaded() as (front, _),
    ):
        upstreams = [world.south, world.north]
        for number, toward in enumerate([Toward.TARGET, Toward.CLIENT] * 4):
            accepted = world.proxy.statistics().accepted
            # In the record's head, in a notice, in the handshake, in the first answers.
            world.proxy.corrupt(1, skip=(2, 30, 700, 1500)[number // 2], toward=toward)
            upstream = upstreams[number % 2]
            await world.point_at(upstream)
            await front.converge(upstream, f"a damaged byte toward {toward}")
            world.proxy.cut()
            await wait_until(lambda seen=accepted: world.proxy.statistics().accepted > seen)  # type: ignore[misc]
            world.proxy.heal()
        await front.wait_ready(ready=True, connected=True)


async def test_a_certificate_that_is_not_trusted_is_told_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        open_world(tmp_path, context=context, ca_file=ca_file) as world,
        world.front() as front,
    ):
        await wait_until(lambda: "certificate" in caplog.text)
        assert (await front.ready()).document["connected"] is False
        authority.issue_cert("127.0.0.1").configure_cert(context)
        await front.converge(world.north, "the certificate was replaced")


@pytest.mark.parametrize("both", [False, True])
async def test_providers_that_are_too_large_leave_the_gateway_what_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, both: bool
) -> None:
    small = attrs.evolve(LINE, max_message_bytes=20_000)
    async with (
        open_world(tmp_path, line=small if both else LINE) as world,
        world.loaded(small) as (front, _),
    ):
        names = [f"large-{number}" for number in range(20)]
        for name in names:
            await world.store.add_provider(ADA, draft(name, *(letter * 2000 for letter in "abc")))
        told = "too large" if both else "larger than its receiver accepts"
        await wait_until(lambda: told in caplog.text)
        await world.point_at(world.south)
        assert (await front.ask()).model == "m@north"
        for name in names:
            await world.store.remove_provider(ADA, name, allow_empty=True)
        await front.converge(world.south, "the providers were made fewer")
        await front.wait_ready(ready=True, connected=True)
