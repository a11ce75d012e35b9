"""URLs of stores are judged before anybody parses them: refused by variable, and never is a piece of them shown."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from redis.asyncio.connection import parse_url

from ops.assembly.settings import SettingsError, load_settings
from ops.store_url import judged_http, judged_postgres, judged_redis
from test_settings_checked import KEYS

# A distinctive word in two halves, with something between them that moves the borders of a URL.
HALVES = ("Xylo", "Phon")
RESERVED = ["/", "@", "#", "?", "%", " ", "[", "]", "\t", "ł", "@@", "/@", "#/", "?@x=", "%zz", "://"]


@pytest.mark.parametrize("sign", RESERVED)
@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("REDIS_URL", "redis://:{}@127.0.0.1:6379/0"),
        ("REDIS_URL", "rediss://user:{}@127.0.0.1/0"),
        ("DATABASE_URL", "postgresql://user:{}@127.0.0.1:5432/penstock"),
        ("BANK_URL", "http://user:{}@127.0.0.1:8787"),
    ],
)
def test_a_password_with_a_reserved_character_is_refused_by_variable_and_not_shown(
    variable: str, url: str, sign: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({**KEYS, f"PENSTOCK_{variable}": url.format(sign.join(HALVES))})

    said = str(refused.value)
    assert said.startswith(f"PENSTOCK_{variable}: ")
    assert not any(half in said for half in HALVES)
    if sign in tuple("/@#?%"):
        assert quote(sign, safe="") in said, "it says how to write it"


@pytest.mark.parametrize("sign", [*RESERVED, ":", "&", "=", "+", ",", ";", "\\", "'", '"', "<", "{", "~"])
def test_a_password_that_is_percent_encoded_arrives_whole(sign: str) -> None:
    password = sign.join(HALVES)
    encoded = quote(password, safe="")

    redis = judged_redis(f"redis://user:{encoded}@127.0.0.1:6379/3")
    ledger = judged_postgres(f"postgresql://user:{encoded}@127.0.0.1:5432/penstock")

    assert parse_url(redis)["password"] == password
    assert (parse_url(redis)["host"], parse_url(redis)["db"]) == ("127.0.0.1", 3)
    assert conninfo_to_dict(ledger)["password"] == password


@pytest.mark.parametrize("sign", [":", "&", "=", "+", ",", ";", "!", "$", "*", "'", "(", "~"])
def test_what_needs_no_encoding_is_read_as_it_stands(sign: str) -> None:
    password = sign.join(HALVES)

    assert parse_url(judged_redis(f"redis://:{password}@127.0.0.1:6379/0"))["password"] == password
    assert conninfo_to_dict(judged_postgres(f"postgresql://u:{password}@127.0.0.1/x"))["password"] == password


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1/production",
        "redis://127.0.0.1/-1",
        "redis://127.0.0.1/0x1",
        "redis://127.0.0.1/1.5",
        "redis://127.0.0.1/0/1",
        "redis://127.0.0.1/99999999999999999999",
        "redis://127.0.0.1?db=one",
        "redis://127.0.0.1/1?db=2",
        "redis://127.0.0.1/%30x",
        "redis://127.0.0.1:port/0",
        "redis://127.0.0.1:99999/0",
        "redis://a:b:6379/0",
        "redis://127.0.0.1/0?protocol=3",
        "redis://127.0.0.1/0?decode_responses=true",
        "redis://127.0.0.1/0?bogus",
        "redis://127.0.0.1/0?socket_timeout=1",
        "redis://127.0.0.1/0?ssl_cert_reqs=none",
        "redis://127.0.0.1/0?max_connections=many",
        "unix://tmp/redis.sock",
        "unix://",
        "http://127.0.0.1",
    ],
)
def test_a_redis_url_with_something_else_than_a_number_or_an_unknown_option_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        judged_redis(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://127.0.0.1:6379",
        "redis://127.0.0.1:6379/",
        "redis://redis.internal:6379/15",
        "redis://[::1]:6379/0",
        "redis://127.0.0.1/0?client_name=penstock",
        "rediss://user:secret@redis.internal:6380/1?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
        "unix://user:secret@/run/redis.sock?db=2",
    ],
)
def test_a_redis_url_as_it_should_be_is_taken(url: str) -> None:
    assert judged_redis(url) == url


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("postgresql://penstock@db.internal/penstock", True),
        ("postgres://127.0.0.1:5432/penstock?sslmode=require&application_name=x", True),
        ("postgresql://a:1,b:2/penstock?target_session_attrs=read-write", True),
        ("postgresql:///penstock?host=/run/postgresql", True),
        ("postgresql://%2Frun%2Fpostgresql/penstock", True),
        ("postgresql://u@h/x?options=-c%20work_mem%3D5MB", True),
        ("postgresql://h:port/x", False),
        ("postgresql://h:99999/x", False),
        ("postgresql://h/x/y", False),
        ("postgresql://h/x?bogus=1", False),
        ("mysql://h/x", False),
    ],
)
def test_a_postgres_url_is_read_as_libpq_reads_it(url: str, fits: bool) -> None:
    if fits:
        assert judged_postgres(url) == url
    else:
        with pytest.raises(ValueError):
            judged_postgres(url)


@pytest.mark.parametrize("url", ["ftp://bank", "http://", "http://bank:port", "http://bank/?x=1", "http://ba nk"])
def test_a_bank_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        judged_http(url)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("PENSTOCK_DATABASE_URL", ["merchant", "list"]),
        ("PENSTOCK_DATABASE_URL", ["master-key", "status"]),
        ("PENSTOCK_REDIS_URL", ["streams"]),
        ("PENSTOCK_BANK_DATABASE_URL", ["bank"]),
    ],
)
def test_commands_refuse_a_split_password_too_and_show_nothing_of_it(variable: str, words: list[str]) -> None:
    scheme = "redis" if "REDIS" in variable else "postgresql"
    environ = {"PATH": "/usr/bin:/bin", variable: f"{scheme}://u:Xylo@Phon@127.0.0.1/0"}

    done = subprocess.run([sys.executable, "-m", "ops.cli.main", *words], env=environ, capture_output=True, text=True)

    assert done.returncode == 1 and variable in done.stderr and "Traceback" not in done.stderr
    assert not any(half in done.stderr + done.stdout for half in HALVES)
