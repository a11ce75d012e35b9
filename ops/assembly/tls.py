"""TLS at the edge: a certificate and its key out of files, read again when they change, without a restart.

What is wrong with the files is said in words at the start, and nothing starts. While the process runs, files that do
not work (half replaced, expired, a key of another certificate) are a log line, and the certificate of before stays.
New connections get the new certificate; those that are open keep theirs.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import anyio
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from prometheus_client import CollectorRegistry, Gauge

from engine.contracts.connector import Clock
from engine.errors import Broken
from ops.secret_file import SecretFileError, read_file

_LOOK_EVERY_S = 1.0  # a Secret of Kubernetes is there within a minute anyway; reading two small files costs nothing
_FILE_BYTES_MAX = 256 * 1024
_CERT, _KEY = "PENSTOCK_EDGE_TLS_CERT_FILE", "PENSTOCK_EDGE_TLS_KEY_FILE"

log = structlog.get_logger()


class Certificate:
    """Raises Broken when made of files that do not work. `context` is for a server; run `run` for life."""

    def __init__(
        self, cert_file: Path, key_file: Path, clock: Clock, registry: CollectorRegistry | None = None
    ) -> None:
        self._files, self._clock = (cert_file, key_file), clock
        self._complained = ""
        self._ends = None
        if registry is not None:
            self._ends = Gauge(
                "penstock_tls_certificate_expires_timestamp_seconds",
                "When the certificate that new connections get expires.",
                registry=registry,
            )
        self._read = self._contents()
        self._current = self.context = self._made(self._read)
        self.context.sni_callback = self._choose  # called for each connection, with and without a name

    async def run(self) -> None:
        while True:
            await anyio.sleep(_LOOK_EVERY_S)
            self.run_once()

    def run_once(self) -> None:
        """One look at the files."""
        try:
            contents = self._contents()
            if contents == self._read:
                return
            self._read = contents
            self._current = self._made(contents)
        except Broken as fault:
            self._complain(str(fault))
        else:
            self._complained = ""
            log.info("tls_certificate_changed", file=str(self._files[0]))

    def _complain(self, fault: str) -> None:
        if fault != self._complained:
            log.error("tls_certificate_not_changed", fault=fault, kept="the certificate of before")
        self._complained = fault

    def _contents(self) -> tuple[bytes, bytes]:
        cert, key = self._files
        try:
            return read_file(_CERT, cert, _FILE_BYTES_MAX), read_file(_KEY, key, _FILE_BYTES_MAX)
        except SecretFileError as error:
            raise Broken(str(error)) from None

    def _made(self, contents: tuple[bytes, bytes]) -> ssl.SSLContext:
        """Raises Broken."""
        ends = self._judged(*contents)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._files, password=_no_passphrase)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise Broken(f"{_CERT} and {_KEY} cannot be used: {str(reason).lower().replace('_', ' ')}") from None
        if self._ends is not None:
            self._ends.set(ends.timestamp())
        return context

    def _judged(self, cert: bytes, key: bytes) -> datetime:
        """When the certificate ends. Raises Broken."""
        cert_file, key_file = self._files
        try:
            leaf = x509.load_pem_x509_certificates(cert)[0]
        except ValueError:
            raise Broken(f"{_CERT}: {cert_file} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None
        try:
            private = load_pem_private_key(key, None)
        except TypeError:
            raise Broken(f"{_KEY}: {key_file} is encrypted; write the key without a passphrase") from None
        except ValueError:
            raise Broken(f"{_KEY}: {key_file} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            raise Broken(
                f"the key in {key_file} ({_KEY}) is not the one of the certificate in {cert_file} ({_CERT}); the "
                "server's own certificate comes first in that file, those that signed it behind it"
            )
        now, begins, ends = self._clock(), leaf.not_valid_before_utc, leaf.not_valid_after_utc
        if ends <= now:
            raise Broken(f"{_CERT}: the certificate in {cert_file} expired on {ends:%Y-%m-%d %H:%M} UTC")
        if begins > now:
            raise Broken(f"{_CERT}: the certificate in {cert_file} is not valid before {begins:%Y-%m-%d %H:%M} UTC")
        return ends

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current


def _no_passphrase() -> bytes:
    """Instead of a question at the terminal."""
    return b""
