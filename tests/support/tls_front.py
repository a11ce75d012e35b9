"""Real TLS, or a unix socket, in front of a store that speaks neither here: as a managed one or a stunnel does it."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)  # how libpq asks Postgres for TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A certificate authority, and what it signs. `ca` is the file to trust."""

    ca: Path
    folder: Path
    key: Any
    name: x509.Name

    def context(self, *, host: str = "127.0.0.1", days: int = 1) -> ssl.SSLContext:
        """Of a server with a certificate for that host that ends in so many days; expired when they are negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative: x509.GeneralName
        try:
            alternative = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        certificate = _certificate(_named(host), self.name, key.public_key(), days)
        certificate = certificate.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        path = self.folder / f"{host}-{days}.pem"
        path.write_bytes(_pem_of_key(key) + certificate.sign(self.key, hashes.SHA256()).public_bytes(_PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


_PEM = serialization.Encoding.PEM


def an_authority(folder: Path) -> Authority:
    folder.mkdir(parents=True, exist_ok=True)
    key, name = ec.generate_private_key(ec.SECP256R1()), _named(f"an authority of {folder.name}")
    certificate = _certificate(name, name, key.public_key(), 1)
    certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    ca = folder / "ca.pem"
    ca.write_bytes(certificate.sign(key, hashes.SHA256()).public_bytes(_PEM))
    return Authority(ca=ca, folder=folder, key=key, name=name)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=30))
    return builder.not_valid_after(now + timedelta(days=days))


def _pem_of_key(key: Any) -> bytes:
    pem: bytes = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem


@contextmanager
def a_front(
    upstream: int, *, tls: ssl.SSLContext | None = None, postgres: bool = False, path: Path | None = None
) -> Iterator[int]:
    """Its port, 0 for a unix socket. What comes is passed on to the port `upstream`, in the clear."""
    with asyncio.Runner() as runner:
        ready, loop = threading.Event(), runner.get_loop()
        port = 0
        stop = asyncio.Event()

        async def serve() -> None:
            nonlocal port
            handler = _Front(upstream, tls if postgres else None).handle
            if path is not None:
                server: asyncio.Server = await asyncio.start_unix_server(handler, path)
            else:
                server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=None if postgres else tls)
                port = server.sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            server.close()

        thread = threading.Thread(target=lambda: runner.run(serve()))
        thread.start()
        assert ready.wait(10)
        try:
            yield port
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)


class _Front:
    def __init__(self, upstream: int, later_tls: ssl.SSLContext | None) -> None:
        self._upstream, self._later_tls = upstream, later_tls

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if self._later_tls is not None:
                if await reader.readexactly(8) != SSL_REQUEST:
                    return writer.close()  # it speaks to nobody without
                writer.write(b"S")
                await writer.start_tls(self._later_tls)
            behind, to_it = await asyncio.open_connection("127.0.0.1", self._upstream)
            await asyncio.gather(_pump(reader, to_it), _pump(behind, writer))
        writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()
