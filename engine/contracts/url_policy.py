"""Where webhooks may go: rules for URLs, and for the addresses behind them (server-side request forgery). Pure.

The URL is judged when it is registered, and again with each address it resolves to when a connection is made
(sender.py): a name may resolve to something else by then. Addresses that lead inside are refused, in every notation.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from unicodedata import normalize
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

URL_CHARACTERS_MAX = 2048
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# NAT64, 6to4 and ISATAP carry an IPv4 address inside: it is judged as well (RFC 6052, RFC 3056, RFC 5214).
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # the upper half of the interface's identifier
# Where clouds answer their machines with credentials. Two of these are public addresses, and an allowed network that
# happens to include one is not meant to: they are never called.
_METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
            *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"),
        ),
    )
)
_METADATA_NAMES = frozenset(
    {
        *("metadata", "instance-data", "rancher-metadata", "metadata.google.internal", "metadata.goog"),
        *("instance-data.ec2.internal", "metadata.azure.internal", "metadata.azure.com", "metadata.packet.net"),
        *("metadata.platformequinix.com", "metadata.tencentyun.com"),
    }
)
# Not public whatever a version of Python thinks of them: shared by carriers, NAT64 of a network's own, Teredo, relays
# of 6to4, what is thrown away, documentation, segment routing.
_INNER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15"),
            *("64:ff9b:1::/48", "100::/64", "2001::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
        ),
    )
)
# Names that no public name server answers for (RFC 6762, RFC 8375, the reserved .internal, and customs of offices).
_INNER_ENDS = (".internal", ".local", ".localdomain", ".home.arpa", ".lan", ".intranet", ".corp", ".home", ".private")

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_ODD_PORT = re.compile(r":(?:0[0-9]*)?\Z")
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_LOOPBACK = IPv4Address("127.0.0.1")
_PORTS = {"http": 80, "https": 443}


class UrlPolicy(Struct, frozen=True, kw_only=True):
    """What a deployment lets its webhooks reach. `inside`: networks that are allowed although they are not public."""

    https_only: bool
    inside: tuple[Network, ...] = ()

    def refusal_of_url(self, url: str) -> str | None:
        """Why this URL may not be called, in words for the merchant; None when nothing speaks against it."""
        if len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
            return (
                f"must have at most {URL_CHARACTERS_MAX} printable ASCII characters, without spaces; "
                "what is beyond ASCII in its ASCII form (xn-- in names, %C3%BC in paths)"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            return "must be a URL, with a port up to 65535 if there is one"
        if parts.scheme not in _PORTS or not host or port == 0:
            return "must be http://host/path or https://host/path"
        if self.https_only and parts.scheme != "https":
            return "must use https"
        if "@" in parts.netloc:
            return "must not have a user name or password in it"
        if "#" in url:
            return "must not have a fragment (#...), which is never sent"
        if url.endswith("?") and not parts.query:
            return "must not end in a question mark without a query, which is not sent as it stands"
        if _ODD_PORT.search(parts.netloc):
            return "must have a port without leading zeros, or no colon before the path"
        if "[" in parts.netloc and ":" not in host:
            return "must have an IPv6 address between its brackets"
        return self._refusal_of_host(host)

    def _refusal_of_host(self, host: str) -> str | None:
        name = host.removesuffix(".")
        if name in _METADATA_NAMES:
            return "must not lead to a cloud's metadata"
        inner = ":" not in name and ("." not in name or name.endswith((".localhost", *_INNER_ENDS)))
        if inner and not self.inside:
            return _refusal_of_name(name) or "must have a public host name"
        if inner and name != host:  # localhost. is localhost, in a spelling that only who evades a list has use for
            return "must have a host name without a dot at its end"
        try:
            address = _LOOPBACK if host == "localhost" or host.endswith(".localhost") else ip_address(host)
        except ValueError:
            return _refusal_of_name(host)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return "must not have a zone (%...) in its address"
        return None if self.allows(address) else "must lead to a public address"

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made."""
        if isinstance(address, IPv6Address) and (within := _embedded(address)) is not None:
            return self.allows(within)
        if address in _METADATA:
            return False
        if any(address.version == network.version and address in network for network in self.inside):
            return True
        if any(address.version == network.version and address in network for network in _INNER):
            return False
        if isinstance(address, IPv6Address) and address.is_site_local:  # withdrawn, and still routed in places
            return False
        return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def normal_form(url: str) -> str:
    """The same URL in one spelling, to compare and to connect by: scheme and host in small letters, no port that is the
    usual one, a path. The path and the query stay as they are, byte for byte."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return urlunsplit((parts.scheme, f"{host}{port}", parts.path or "/", parts.query, ""))


def networks(text: str) -> tuple[Network, ...]:
    """Networks from "127.0.0.0/8,::1/128". Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def _refusal_of_name(host: str) -> str | None:
    """Numbers in other notations (octal, hexadecimal, one for all) would be addresses to the system's resolver."""
    labels = host.removesuffix(".").split(".")
    if _NUMBER.match(labels[-1]):
        return "must have an IPv4 address as four decimal numbers, without leading zeros"
    if len(host) > 253 or not all(_LABEL.match(label) for label in labels):
        return "must have a host name of letters, digits, dashes and dots"
    try:
        international = [label[4:].encode().decode("punycode") for label in labels if label.startswith("xn--")]
    except UnicodeError:
        international = [""]
    # In another width or form they would be plain ASCII, perhaps of an address, to who normalizes them first.
    if any(not name or normalize("NFKC", name).isascii() for name in international):
        return "must have a host name whose xn-- labels stand for something"
    return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this one end up at, if it is a notation for one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    isatap = int(address) >> 32 & 0xFFFFFFFF in _ISATAP
    if isatap or address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
