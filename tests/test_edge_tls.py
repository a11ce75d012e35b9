"""HTTPS at the edge by certificate files: what is wrong with them is said, and new ones need no restart."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from engine.errors import Broken
from ops.assembly.process import utc_now
from ops.assembly.settings import SettingsError, load_settings
from ops.assembly.tls import Certificate
from ops.stack.address import any_free_port
from support.gateway import Gateway, eventually
from support.steady_clients import drive
from test_settings_checked import KEYS

NOW = datetime.now(UTC)
Pair = tuple[bytes, bytes]


def a_pair(name: str, *, begins_d: int = -1, ends_d: int = 30, password: bytes | None = None) -> Pair:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=begins_d))
        .not_valid_after(NOW + timedelta(days=ends_d))
        .sign(key, SHA256())
    )
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection),
    )


FIRST, SECOND = a_pair("first"), a_pair("second")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls.crt", tmp_path / "tls.key"


def write(files: tuple[Path, Path], pair: Pair) -> None:
    for path, content in zip(files, pair, strict=True):
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((b"", FIRST[1]), "tls.crt is empty"),
        ((FIRST[0], b""), "tls.key is empty"),
        ((b"nonsense", FIRST[1]), "holds no certificate in PEM"),
        ((FIRST[0], b"nonsense"), "holds no private key in PEM"),
        ((FIRST[1], FIRST[0]), "holds no certificate in PEM"),
        ((FIRST[0], SECOND[1]), "is not the one of the certificate"),
        ((SECOND[0] + FIRST[0], FIRST[1]), "the server's own certificate comes first"),
        (a_pair("locked", password=b"hunter2"), "is encrypted; write the key without a passphrase"),
        (a_pair("old", begins_d=-9, ends_d=-2), "expired on"),
        (a_pair("young", begins_d=2, ends_d=9), "is not valid before"),
        ((FIRST[0][:-200], FIRST[1]), "holds no certificate in PEM"),
        ((b"x" * 300_000, FIRST[1]), "is larger than"),
    ],
)
def test_files_that_do_not_work_are_told_in_words(files: tuple[Path, Path], pair: Pair, words: str) -> None:
    write(files, pair)

    with pytest.raises(Broken) as caught:
        Certificate(*files, utc_now, None)

    assert words in str(caught.value)
    assert "PENSTOCK_EDGE_TLS_" in str(caught.value)


def test_files_that_are_not_there_are_told_by_name(files: tuple[Path, Path]) -> None:
    with pytest.raises(Broken, match=r"PENSTOCK_EDGE_TLS_CERT_FILE: .*tls\.crt cannot be read \(No such file"):
        Certificate(*files, utc_now, None)


@pytest.mark.parametrize("name", ["CERT", "KEY"])
def test_one_file_alone_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="go together"):
        load_settings({**KEYS, f"PENSTOCK_EDGE_TLS_{name}_FILE": "/tls"})


def test_files_that_break_are_not_taken_and_good_ones_are(files: tuple[Path, Path]) -> None:
    registry = CollectorRegistry()
    write(files, FIRST)
    certificate = Certificate(*files, utc_now, registry)
    before = certificate._current

    for pair in ((SECOND[0], FIRST[1]), (b"", SECOND[1]), a_pair("old", begins_d=-9, ends_d=-2)):
        write(files, pair)
        certificate.run_once()
        assert certificate._current is before
    files[0].unlink()
    certificate.run_once()
    assert certificate._current is before

    write(files, SECOND)
    certificate.run_once()

    assert certificate._current is not before
    ends = registry.get_sample_value("penstock_tls_certificate_expires_timestamp_seconds")
    assert ends == pytest.approx((NOW + timedelta(days=30)).timestamp(), abs=2)


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Without a process yet."""
    gateway = Gateway(
        database=database,
        redis_url=redis_url,
        bank_url="http://127.0.0.1:1",
        folder=tmp_path,
        environ={"PENSTOCK_CONNECTOR": "instant"},
    )
    yield gateway
    gateway.close()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_new_certificate_is_used_without_a_restart_by_each_process(
    gateway: Gateway, files: tuple[Path, Path], processes: int
) -> None:
    write(files, FIRST)
    edge = launched(gateway, files, processes)
    assert {name_shown(edge.port) for _ in range(8)} == {"first"}
    with connected(edge.port) as kept:
        write(files, (b"broken", SECOND[1]))
        eventually(lambda: "tls_certificate_not_changed" in edge.log.read_text(), "the mistake is told")
        assert {name_shown(edge.port) for _ in range(8)} == {"first"}

        write(files, SECOND)
        eventually(lambda: edge.log.read_text().count("tls_certificate_changed") == processes, "all have read it")

        assert {name_shown(edge.port, named) for named in (False, True) for _ in range(8)} == {"second"}
        kept.sendall(b"GET /livez HTTP/1.1\r\nhost: edge\r\n\r\n")
        assert kept.recv(4096).startswith(b"HTTP/1.1 200")
    assert edge.end() == 0


@pytest.mark.slow
def test_nothing_older_than_tls_1_2_and_no_plain_http_is_served(gateway: Gateway, files: tuple[Path, Path]) -> None:
    write(files, FIRST)
    edge = launched(gateway, files, 1)

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with connected(edge.port, version) as connection:
            assert connection.version() == version.name.replace("_", ".")
    with pytest.raises(ssl.SSLError), pytest.warns(DeprecationWarning):
        connected(edge.port, ssl.TLSVersion.TLSv1_1)
    with socket.create_connection(("127.0.0.1", edge.port), 5) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nhost: edge\r\n\r\n")
        assert not plain.recv(4096).startswith(b"HTTP")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_edge_with_a_broken_certificate_does_not_start(
    gateway: Gateway, files: tuple[Path, Path], processes: int
) -> None:
    write(files, (FIRST[0], SECOND[1]))

    edge = gateway.launch("edge", **variables(files, processes))

    assert edge.died() == 1
    assert "is not the one of the certificate" in edge.log.read_text()


@pytest.mark.slow
def test_under_load_no_request_over_tls_goes_without_an_answer(gateway: Gateway, files: tuple[Path, Path]) -> None:
    write(files, FIRST)
    gateway.start("worker")
    edge = launched(gateway, files, 2, PENSTOCK_EDGE_LINGER_S="1")

    async def stopped() -> object:
        ended = asyncio.Event()
        load = asyncio.create_task(
            drive(edge.port, "4111111111111111", per_s=50, wait_s=10, ended=ended, tls=unverified())
        )
        await asyncio.sleep(2)
        os.kill(edge.pid, signal.SIGTERM)
        await asyncio.sleep(3)
        ended.set()
        return await load

    seen = asyncio.run(stopped())

    assert seen.lost == []  # type: ignore[attr-defined]
    assert edge.died(60) == 0


def variables(files: tuple[Path, Path], processes: int) -> dict[str, str]:
    cert, key = map(str, files)
    tls = {"PENSTOCK_EDGE_TLS_CERT_FILE": cert, "PENSTOCK_EDGE_TLS_KEY_FILE": key}
    return {**tls, "PENSTOCK_EDGE_PROCESSES": str(processes)}


def launched(gateway: Gateway, files: tuple[Path, Path], processes: int, **environ: str):  # type: ignore[no-untyped-def]
    first = any_free_port()
    environ = {**environ, "PENSTOCK_EDGE_METRICS_PORT": str(first)} if processes > 1 else environ
    edge = gateway.launch("edge", **variables(files, processes), **environ)

    def ready() -> bool:
        assert edge.process.poll() is None, edge.log.read_text()[-2000:]
        try:
            with connected(edge.port) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n")
                return connection.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    eventually(ready, "the edge is ready", 60)
    for number in range(processes if processes > 1 else 0):  # all have read the files
        eventually(lambda number=number: listens(first + number), f"process {number + 1} is ready", 60)
    return edge


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def unverified(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = version
        context.maximum_version = version
    return context


def connected(port: int, version: ssl.TLSVersion | None = None, *, named: bool = False) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), 10)
    return unverified(version).wrap_socket(plain, server_hostname="edge.internal" if named else None)


def name_shown(port: int, named: bool = False) -> str:
    with connected(port, named=named) as connection:
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return str(x509.load_der_x509_certificate(shown).subject.rfc4514_string().removeprefix("CN="))
