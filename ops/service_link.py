"""Variables that Kubernetes and Docker put into every container, for services beside it; no settings of ours.

A Service `penstock-edge` gives PENSTOCK_EDGE_SERVICE_HOST, PENSTOCK_EDGE_PORT=tcp://10.0.0.1:8000 and more, which would
be unknown settings, or wrong ones. Both the name and the value must have the form that the platform writes, and agree
with each other, so that a mistyped setting is still refused.
Sources: kubernetes.io/docs/concepts/services-networking/service (environment variables); docs.docker.com, legacy links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address

_URL = re.compile(r"(?P<protocol>tcp|udp|sctp)://(?P<host>[0-9.]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,5}")
_SERVICE = r"(?P<service>PENSTOCK(?:_[A-Z0-9_]*[A-Z0-9])?)"
_OF_PORT = r"_PORT_(?P<port>[0-9]{1,5})_(?P<protocol>TCP|UDP|SCTP)"


def without_links(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are not of this family."""
    return {name: value for name, value in environ.items() if not is_link(name, value, environ)}


def drop_links() -> None:
    """Take them out of this process' environment."""
    for name in os.environ.keys() - without_links(os.environ).keys():
        del os.environ[name]


def is_link(name: str, value: str, environ: Mapping[str, str]) -> bool:
    """Whether this variable is of the family, in this environment."""
    for form, agrees in _FORMS:
        found = form.fullmatch(name)
        if found is not None and agrees(found, value, environ):
            return True
    return False


def _is_address(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    return _NUMBER.fullmatch(value) is not None and 1 <= int(value) <= 65_535


def _is_url(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    url, named = _URL.fullmatch(value), found.groupdict()
    return (
        url is not None
        and _is_port(found, url["port"], environ)
        and _is_address(found, url["host"].strip("[]"), environ)
        and named.get("port") in (None, url["port"])
        and named.get("protocol") in (None, url["protocol"].upper())
    )


def _is_its_port(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    return value == found["port"] and _is_port(found, value, environ)


def _is_its_protocol(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    return value == found["protocol"].lower()


def _is_linked(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    """Docker tells the name and the environment of what it links beside its address: that they go together is all
    that can be checked."""
    return _is_url(found, environ.get(f"{found['service']}_PORT", ""), environ)


def _is_name(found: re.Match[str], value: str, environ: Mapping[str, str]) -> bool:
    return re.fullmatch(r"/[^/\s]+/[^/\s]+", value) is not None and _is_linked(found, value, environ)


# fmt: off
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str, Mapping[str, str]], bool]], ...] = (
    # name, behind the service's own                                value
    (re.compile(_SERVICE + "_SERVICE_HOST"),                        _is_address),
    (re.compile(_SERVICE + r"_SERVICE_PORT(?:_[A-Z0-9_]+)?"),       _is_port),
    (re.compile(_SERVICE + "_PORT"),                                _is_url),
    (re.compile(_SERVICE + _OF_PORT),                               _is_url),
    (re.compile(_SERVICE + _OF_PORT + "_ADDR"),                     _is_address),
    (re.compile(_SERVICE + _OF_PORT + "_PORT"),                     _is_its_port),
    (re.compile(_SERVICE + _OF_PORT + "_PROTO"),                    _is_its_protocol),
    (re.compile(_SERVICE + "_NAME"),                                _is_name),
    (re.compile(_SERVICE + r"_ENV_[A-Za-z_][A-Za-z0-9_]*"),         _is_linked),
)
# fmt: on
