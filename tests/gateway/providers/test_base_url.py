import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.providers import parse_base_url
from bridgepool.gateway.providers._base_url import address_is_private


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com:443/v1/", "https://api.openai.com/v1"),
        ("http://example.com", "http://example.com"),
        ("http://example.com/", "http://example.com"),
        ("http://example.com:80", "http://example.com"),
        ("http://example.com:0443/a/b", "http://example.com:443/a/b"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://example.com./v1", "https://example.com/v1"),
        ("https://xn--bcher-kva.example/v1", "https://xn--bcher-kva.example/v1"),
        ("http://vllm_server:8000/v1", "http://vllm_server:8000/v1"),
        ("https://host/openai/deployments/gpt-4o:1/@x", None),
        ("http://8.8.8.8/v1", "http://8.8.8.8/v1"),
        ("http://[2600:0::1]:8080/v1", "http://[2600::1]:8080/v1"),
    ],
)
def test_spellings_of_one_upstream_come_out_as_one_form(text: str, form: str | None) -> None:
    assert str(parse_base_url(text)) == (form or text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "absolute"),
        ("api.openai.com/v1", "absolute"),
        ("//host/v1", "absolute"),
        ("/v1", "absolute"),
        ("https:/host", "absolute"),
        ("ftp://host", "neither"),
        ("file:///etc/passwd", "neither"),
        ("javascript://host", "neither"),
        ("https://", "no host"),
        ("https:///v1", "no host"),
        ("https://.", "no host"),
        ("https://user:hunter2@host/", "user name"),
        ("https://hunter2@host/", "user name"),
        ("https://host/?key=hunter2", "query"),
        ("https://host/?", "query"),
        ("https://host/#hunter2", "fragment"),
        ("https://host\n/hunter2", "control"),
        ("https://host/a b", "space"),
        (" https://host/", "space"),
        ("https://host\t/", "space"),
        ("https://ho\x00st/", "control"),
        ("https://ex\u0430mple.com/", "outside ASCII"),
        ("https://\uff11\uff12\uff17.0.0.1/", "outside ASCII"),
        ("https://host\\@evil/", "backslash"),
        ("https://host:0/", "port"),
        ("https://host:65536/", "port"),
        ("https://host:/", "port"),
        ("https://host:8o/", "port"),
        ("https://host:-1/", "port"),
        ("https://host:1:2/", "port"),
        ("https://a..b/", "host name"),
        ("https://-a.b/", "host name"),
        ("https://a%2eb/", "host name"),
        ("https://" + "a" * 64 + ".com/", "host name"),
        ("https://" + ".".join(["a" * 60] * 5) + "/", "host name"),
        ("https://[::1/", "brackets"),
        ("https://[::1]x/", "brackets"),
        ("https://[hunter2]/", "brackets"),
        ("https://[127.0.0.1]/", "brackets"),
        ("https://[fe80::1%eth0]/", "zone"),
        ("https://host/a/../b", "path"),
        ("https://host/./b", "path"),
        ("https://host//b", "path"),
        ("https://host/b//", "path"),
        ("https://host/%2e%2e/b", "path"),
        ("https://host/a;b", "path"),
        ("https://host/" + "a" * 3000, "longer"),
    ],
)
def test_what_is_not_a_plain_absolute_url_is_refused_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_base_url(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.1.",
        "1.2.3.4.5",
        "127.0.0.01",
        "10.0x0",
        "a.0x1",
        "256.1.1.1",
        "127.0.0.1..",
    ],
)
def test_an_ipv4_address_in_an_odd_notation_is_never_a_public_host(host: str) -> None:
    try:
        url = parse_base_url(f"http://{host}/")
    except ValueError:
        return
    assert url.host_is_private


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "161.26.0.10",
        "166.8.0.1",
        "166.11.255.254",
        "100.100.100.200",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:168.63.129.16]",
        "[64:ff9b::168.63.129.16]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b::169.254.169.254]",
        "[2002:7f00:1::]",
        "[2002:a00:1::1]",
        "[::ffff:0:10.0.0.1]",
        "[2001::1]",
        "[fec0::1]",
        "[64:ff9b:1::1]",
    ],
)
def test_hosts_inside_the_operators_network_are_told(host: str) -> None:
    assert parse_base_url(f"http://{host}/").host_is_private


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "example.com",
        "localhost.example.com",
        "[2606:4700::1111]",
        "[::ffff:8.8.8.8]",
        "[64:ff9b::8.8.8.8]",
        "[2002:808:808::1]",
        "notlocalhost",
    ],
)
def test_public_hosts_are_told(host: str) -> None:
    assert not parse_base_url(f"http://{host}/").host_is_private


def test_an_address_may_come_as_object_or_text_with_a_zone_and_nothing_else() -> None:
    assert address_is_private("fe80::1%eth0")
    assert address_is_private(ipaddress.ip_address("10.0.0.1"))
    assert not address_is_private(ipaddress.ip_address("2606:4700::1111"))
    with pytest.raises(ValueError, match="does not appear"):
        address_is_private("localhost")


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_that_python_knows_as_not_global_is_private(
    address: ipaddress.IPv4Address,
) -> None:
    if not address.is_global:
        assert address_is_private(address)
    assert address_is_private(address) == address_is_private(
        ipaddress.ip_address(f"::ffff:{address}")
    )


@given(st.ip_addresses(v=6))
def test_every_ipv6_address_that_python_knows_as_private_is_private(
    address: ipaddress.IPv6Address,
) -> None:
    if address.is_private and address.sixtofour is None and address.ipv4_mapped is None:
        assert address_is_private(address)


@given(st.ip_addresses())
def test_an_address_as_a_host_is_judged_like_the_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """No form of an address is taken for a name."""
    for text in {str(address), address.exploded}:
        host = f"[{text}]" if address.version == 6 else text
        url = parse_base_url(f"https://{host}/")
        assert url.host_is_private == address_is_private(address)


@pytest.mark.parametrize("length", [252, 253, 254, 255])
def test_a_host_has_at_most_253_characters(length: int) -> None:
    host = "a." * ((length - 2) // 2) + "a" * (length % 2) + "xy"
    assert len(host) == length
    if length <= 253:
        assert parse_base_url(f"https://{host}").host == host
    else:
        with pytest.raises(ValueError, match="host name"):
            parse_base_url(f"https://{host}")


@given(st.text(max_size=60))
def test_any_text_after_the_scheme_is_parsed_to_a_stable_form_or_refused(text: str) -> None:
    try:
        url = parse_base_url("https://" + text)
    except ValueError:
        return
    assert parse_base_url(str(url)) == url
    assert "@" not in url.authority


def test_the_authority_names_the_port_only_where_it_is_needed() -> None:
    assert parse_base_url("https://host:8443/base/v1/").authority == "host:8443"
    assert parse_base_url("http://[::1]:80").authority == "[::1]"
    assert parse_base_url("https://[::1]:80").authority == "[::1]:80"
