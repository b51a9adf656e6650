"""Base URLs of providers: one form for each, and none into the operator's network unasked.

Pure. A name may still resolve to an address inside; only the code that connects sees that, and asks
`address_is_private` about the address it is about to use.
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

_MAX_LENGTH: Final = 2048
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE_ASCII: Final = re.compile(r"[!-~]*")
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/]*)(?P<path>/.*)?"
)
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_HOST: Final = 253
# RFC 3986 `pchar` without ";" (some servers cut path parameters off after routing) and without
# percent-encodings: a base path has no need of them, and each is a way to hide a separator.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")
# A host whose last label looks like a number is an IPv4 address to every URL parser that
# follows WHATWG and to inet_aton: 2130706433, 0x7f.1, 0177.0.0.1 and 127.1 are all 127.0.0.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# Not reachable on the public internet, by the IANA special-purpose registries. Written out,
# because what `ipaddress.is_private` says has changed between Python versions.
_PRIVATE_V4: Final = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        # Public by the registries, but answered inside of clouds: Azure's platform (metadata,
        # credentials of machines), IBM Cloud's internal services.
        "168.63.129.16/32", "161.26.0.0/16", "166.8.0.0/14",
    )
)  # fmt: skip
_PRIVATE_V6: Final = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20",
        "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_TRANSLATED: Final = ipaddress.IPv6Network("::ffff:0:0:0/96")


@attrs.frozen
class BaseURL:
    """A base URL in its parts, checked and in one form for all its spellings."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int
    """Always there: the scheme's own when the URL names none."""
    path: str
    """Empty, or with a leading and without a trailing slash."""

    @property
    def host_is_private(self) -> bool:
        """Whether the host, as it is written, is inside the operator's network or this machine."""
        # Every address has a colon or ends with a digit; to try to read one takes 10 µs.
        if ":" in self.host or self.host[-1:].isdigit():
            try:
                return address_is_private(self.host)
            except ValueError:
                pass
        return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def authority(self) -> str:
        """What belongs in a ``Host`` header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_base_url(text: str) -> BaseURL:
    """Check an absolute http(s) base URL and take it apart.

    Scheme and host become lower case, the scheme's own port and one trailing slash are left
    out, so that two spellings of one upstream are equal.

    Args:
        text: The URL as an operator wrote it.

    Raises:
        ValueError: It is not usable. The message says why and does not repeat `text`.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"is longer than {_MAX_LENGTH} characters")
    if not _VISIBLE_ASCII.fullmatch(text):
        raise ValueError("has a space, a control character or a character outside ASCII")
    if "\\" in text:
        raise ValueError("has a backslash")
    if "#" in text:
        raise ValueError("has a fragment (#)")
    if "?" in text:
        raise ValueError("has a query (?)")
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("is not an absolute URL such as https://api.example.com/v1")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("is neither http:// nor https://")
    if "@" in match["authority"]:
        raise ValueError("has a user name or password; keys belong in `keys` or `key_env`")
    host, port = _split_authority(match["authority"].lower())
    return BaseURL(scheme, host, port or _DEFAULT_PORTS[scheme], _path(match["path"] or ""))


def address_is_private(address: str | IPv4Address | IPv6Address) -> bool:
    """Return whether an IP address is not a public one.

    Loopback, private, link-local (with the cloud's 169.254.169.254), shared, unique-local,
    multicast, reserved and unspecified addresses are private; so are IPv6 forms that carry such
    an IPv4 address (mapped, translated, 6to4, NAT64).

    Args:
        address: The address, or its usual text; an IPv6 zone (``%eth0``) is allowed.

    Raises:
        ValueError: The text is not an IP address, so nothing can be said about it.
    """
    ip = ipaddress.ip_address(address) if isinstance(address, str) else address
    if isinstance(ip, IPv4Address):
        return any(ip in net for net in _PRIVATE_V4)
    carried = _carried_v4(ip)
    if carried is not None:
        return address_is_private(carried)
    # Membership compares the number only, so the zone does not matter.
    return any(ip in net for net in _PRIVATE_V6)


def _carried_v4(ip: IPv6Address) -> IPv4Address | None:
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64 or ip in _TRANSLATED:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip in _SIX_TO_FOUR:
        return IPv4Address(int(ip) >> 80 & 0xFFFF_FFFF)
    return None


def _split_authority(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        inside, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError("has a host in brackets that is not an IPv6 address")
        try:
            host = str(IPv6Address(inside))
        except ValueError:
            raise ValueError("has a host in brackets that is not an IPv6 address") from None
        if "%" in host:
            raise ValueError("has an IPv6 zone; it has no meaning in a URL")
        return host, _port(port[1:]) if port else None
    host, colon, port = authority.partition(":")
    return _host(host), _port(port) if colon else None


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("has a port that is not a number from 1 to 65535")
    return int(text)


def _host(host: str) -> str:
    host = host.removesuffix(".")
    if not host:
        raise ValueError("has no host")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError(
                "has a host that looks like a number; write an IPv4 address as four decimal numbers"
            ) from None
    if len(host) > _LONGEST_HOST or not _HOST_NAME.fullmatch(host):
        raise ValueError("has a host that is not a host name (write other scripts as xn--…)")
    return host


def _path(path: str) -> str:
    path = path.removesuffix("/")
    for segment in path.split("/")[1:]:
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise ValueError("has a path with an empty, '.' or '..' part, '%', ';' or the like")
    return path
