"""Variables that are not written by hand: service links of a platform are no settings, and secrets may be in files."""

import base64
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from engine.errors import Broken
from ops.assembly.settings import Settings, SettingsError, keyless, load_settings
from ops.secret_file import SECRETS, variables
from ops.store_url import given_url

KEYS = {
    "PENSTOCK_MASTER_KEY": base64.b64encode(b"m" * 32).decode(),
    "PENSTOCK_FINGERPRINT_KEY": base64.b64encode(b"f" * 32).decode(),
}
KUBERNETES = {
    "PENSTOCK_EDGE_SERVICE_HOST": "10.0.0.1",
    "PENSTOCK_EDGE_SERVICE_PORT": "8000",
    "PENSTOCK_EDGE_SERVICE_PORT_HTTP": "8000",
    "PENSTOCK_EDGE_SERVICE_PORT_HTTP_METRICS": "9100",
    "PENSTOCK_EDGE_PORT": "tcp://10.0.0.1:8000",
    "PENSTOCK_EDGE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "PENSTOCK_EDGE_PORT_8000_TCP_PROTO": "tcp",
    "PENSTOCK_EDGE_PORT_8000_TCP_PORT": "8000",
    "PENSTOCK_EDGE_PORT_8000_TCP_ADDR": "10.0.0.1",
    "PENSTOCK_EDGE_PORT_53_UDP": "udp://10.0.0.1:53",
    "PENSTOCK_EDGE_PORT_53_UDP_PROTO": "udp",
    "PENSTOCK_EDGE_PORT_3868_SCTP": "sctp://10.0.0.1:3868",
    "PENSTOCK_REDIS_SERVICE_HOST": "fd00::12",
    "PENSTOCK_REDIS_PORT": "tcp://[fd00::12]:6379",
    "PENSTOCK_REDIS_PORT_6379_TCP_ADDR": "fd00::12",
    "PENSTOCK_WORKER_PORT": "tcp://10.0.0.2:9000",
    "PENSTOCK_AUDITOR_PORT": "tcp://10.0.0.3:9100",
    "PENSTOCK_DISPATCHER_PORT": "tcp://10.0.0.4:9100",
    "PENSTOCK_BANK_PORT": "tcp://10.0.0.5:8787",
    "PENSTOCK_PORT": "tcp://10.0.0.6:80",
    "PENSTOCK_SERVICE_HOST": "10.0.0.6",
    "PENSTOCK_PORT_80_TCP": "tcp://10.0.0.6:80",
    "PENSTOCK_EDGE_2_SERVICE_HOST": "10.0.0.7",
}
DOCKER = {
    "PENSTOCK_WORKER_PORT": "tcp://172.17.0.2:9000",
    "PENSTOCK_WORKER_PORT_9000_TCP": "tcp://172.17.0.2:9000",
    "PENSTOCK_WORKER_NAME": "/edge/penstock-worker",
    "PENSTOCK_WORKER_ENV_PATH": "/usr/bin:/bin",
    "PENSTOCK_WORKER_ENV_PENSTOCK_LEASE_MSS": "anything",
}


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_service_link_of_kubernetes_is_no_setting(name: str) -> None:
    assert load_settings({**KEYS, name: KUBERNETES[name]}).model_fields_set == {"master_key", "fingerprint_key"}


@pytest.mark.parametrize("links", [KUBERNETES, DOCKER])
def test_all_links_of_a_pod_together_change_nothing(links: dict[str, str]) -> None:
    with_links, without = load_settings({**KEYS, **links}), load_settings(KEYS)

    assert with_links.model_dump(exclude={"worker_name"}) == without.model_dump(exclude={"worker_name"})
    assert "/" not in with_links.worker_name
    assert keyless(links).edge_port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.1"),
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.1:80000"),
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.1:0"),
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.256:8000"),
        ("PENSTOCK_EDGE_PORT", "tcp://edge.internal:8000"),
        ("PENSTOCK_EDGE_PORT", "http://10.0.0.1:8000"),
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.1:8000/"),
        ("PENSTOCK_EDGE_PORT", "tcp://10.0.0.1:8000\n"),
        ("PENSTOCK_EDGE_PORT", "TCP://10.0.0.1:8000"),
        ("PENSTOCK_EDGE_PORTS", "tcp://10.0.0.1:8000"),
        ("PENSTOCK_EGDE_PORT", "8000"),
        ("PENSTOCK_EDGE_PORT_8000", "tcp://10.0.0.1:8000"),
        ("PENSTOCK_EDGE_PORT_8000_TCP", "tcp://10.0.0.1:8001"),
        ("PENSTOCK_EDGE_PORT_8000_TCP", "udp://10.0.0.1:8000"),
        ("PENSTOCK_EDGE_PORT_8000_TCP_PROTO", "udp"),
        ("PENSTOCK_EDGE_PORT_8000_TCP_PORT", "8001"),
        ("PENSTOCK_EDGE_PORT_8000_TCP_ADDR", "edge"),
        ("PENSTOCK_EDGE_PORT_99999_TCP_PORT", "99999"),
        ("PENSTOCK_EDGE_PORT_8000_ICMP", "tcp://10.0.0.1:8000"),
        ("PENSTOCK_EDGE_SERVICE_HOST", "edge.internal"),
        ("PENSTOCK_EDGE_SERVICE_HOST", ""),
        ("PENSTOCK_EDGE_SERVICE_HOSTS", "10.0.0.1"),
        ("PENSTOCK_EDGE_SERVICE_PORT", "http"),
        ("PENSTOCK_EDGE_SERVICE_PORT", "70000"),
        ("PENSTOCK_edge_SERVICE_HOST", "10.0.0.1"),
        ("PENSTOCK_WORKER_ENV_PATH", "/bin"),  # without its link
        ("PENSTOCK_STORE_NAME", "/edge/store"),
        ("PENSTOCK_LEASE_MS_", "5000"),
    ],
)
def test_what_only_looks_like_a_link_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({**KEYS, name: value})


def test_every_secret_may_be_in_a_file() -> None:
    fields = Settings.model_fields.items()
    expected = {name for name, field in fields if field.annotation is SecretStr or name.endswith("_url")}

    assert set(SECRETS) == {f"PENSTOCK_{name.upper()}" for name in expected} | {"PENSTOCK_BANK_DATABASE_URL"}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_is_read_from_its_file_without_newlines_at_its_end(tmp_path: Path, end: str) -> None:
    given = {**KEYS, "PENSTOCK_REDIS_URL": "redis://:pass%23word@redis:6379/0", "PENSTOCK_BANK_URL": "https://bank"}
    given |= {"PENSTOCK_RETIRED_MASTER_KEYS": base64.b64encode(b"o" * 32).decode()}
    given |= {"PENSTOCK_DATABASE_URL": "postgresql://penstock:word@db/penstock"}
    files = {}
    for name, value in given.items():
        (tmp_path / name).write_bytes(value.encode() + end.encode())
        files[f"{name}_FILE"] = str(tmp_path / name)

    assert load_settings(files).model_dump(exclude={"worker_name"}) == load_settings(given).model_dump(
        exclude={"worker_name"}
    )


def test_the_banks_database_and_the_commands_of_an_operator_read_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_DATABASE_URL", "PENSTOCK_BANK_DATABASE_URL"):
        (tmp_path / name).write_text("postgresql://u:p@db/x\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))

    assert given_url("PENSTOCK_DATABASE_URL") == given_url("PENSTOCK_BANK_DATABASE_URL") == "postgresql://u:p@db/x"


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_cannot_be_used_is_told_in_words_and_never_by_its_content(tmp_path: Path, name: str) -> None:
    variable, secret = f"{name}_FILE", b"hunter2"
    empty, blank, large, lines, binary, pipe = (tmp_path / kind for kind in ("e", "b", "l", "m", "x", "p"))
    empty.write_bytes(b"")
    blank.write_bytes(b" \n")
    large.write_bytes(secret * 100_000)
    lines.write_bytes(secret + b"\n" + secret)
    binary.write_bytes(secret + b"\xff\xfe")
    os.mkfifo(pipe)

    for path, words in (
        (tmp_path / "absent", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
        (Path("/dev/null"), "is no file"),
        (pipe, "is no file"),
        (empty, "is empty"),
        (blank, "is empty"),
        (large, "is larger than 65536 bytes"),
        (lines, "more than one line"),
        (binary, "no text in UTF-8"),
    ):
        with pytest.raises(Broken) as caught:
            variables({variable: str(path)})
        assert str(caught.value).startswith(f"{variable}: {path} ")
        assert words in str(caught.value)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(Broken, match="names no file"):
        variables({variable: ""})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_somebody_else_is_told_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0)

    with pytest.raises(Broken, match="Permission denied"):
        variables({"PENSTOCK_MASTER_KEY_FILE": str(tmp_path / "key")})


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_given_twice_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("x")

    with pytest.raises(Broken, match=f"{name} and {name}_FILE are both set"):
        variables({name: "y", f"{name}_FILE": str(tmp_path / "secret")})


@pytest.mark.parametrize("name", ["EDGE_PORT", "LOST_MASTER_KEYS", "WORKER_NAME", "MASTER_KEYS"])
def test_no_other_setting_is_read_from_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "value").write_text("8000")

    with pytest.raises(SettingsError, match=f"PENSTOCK_{name}_FILE: no such setting"):
        load_settings({**KEYS, f"PENSTOCK_{name}_FILE": str(tmp_path / "value")})


def test_a_mistake_in_a_file_is_told_like_one_in_the_variable(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2")

    with pytest.raises(SettingsError) as caught:
        load_settings({**KEYS, "PENSTOCK_MASTER_KEY": "", "PENSTOCK_MASTER_KEY_FILE": str(tmp_path / "key")})

    assert str(caught.value).startswith("PENSTOCK_MASTER_KEY: must be base64")
