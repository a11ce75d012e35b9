"""Settings are checked before anything starts, and a mistake is told in words that name the variable."""

import base64
import subprocess
import sys

import pytest

from ops.assembly.settings import Settings, SettingsError, load_settings

KEYS = {
    "PENSTOCK_MASTER_KEY": base64.b64encode(b"m" * 32).decode(),
    "PENSTOCK_FINGERPRINT_KEY": base64.b64encode(b"f" * 32).decode(),
}
PRODUCTION = {
    **KEYS,
    "PENSTOCK_ENV": "production",
    "PENSTOCK_REDIS_URL": "rediss://redis.internal:6379/0",
    "PENSTOCK_DATABASE_URL": "postgresql://penstock@db.internal/penstock",
    "PENSTOCK_BANK_URL": "https://bank.internal",
}


def complaint(**changes: str | None) -> str:
    """What is said about the local settings with these changes; None unsets a variable."""
    given = {**KEYS, **{f"PENSTOCK_{name}": value for name, value in changes.items()}}
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value for name, value in given.items() if value is not None})
    return str(caught.value)


def test_the_keys_alone_are_enough_on_this_machine() -> None:
    settings = load_settings(KEYS)

    assert settings.vault_keys == [b"m" * 32]
    assert settings.fingerprint_key_bytes == b"f" * 32
    assert (settings.env, settings.partitions, settings.edge_port) == ("local", 16, 8000)


def test_retired_master_keys_come_after_the_one_that_seals() -> None:
    old, older = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"p"))

    settings = load_settings({**KEYS, "PENSTOCK_RETIRED_MASTER_KEYS": f"{old}, {older}"})

    assert settings.vault_keys == [b"m" * 32, b"o" * 32, b"p" * 32]


@pytest.mark.parametrize("keys", ["short", base64.b64encode(b"o" * 31).decode()])
def test_a_retired_master_key_of_another_form_is_refused_by_name(keys: str) -> None:
    assert complaint(RETIRED_MASTER_KEYS=keys).startswith("PENSTOCK_RETIRED_MASTER_KEYS: ")


def test_variables_of_others_do_not_disturb() -> None:
    others = {"PENSTOCK_REDIS_SERVER": "redis-server", "PENSTOCK_BANK_CONTROL": "1", "PATH": "/bin", "EDGE_PORT": "x"}

    assert load_settings({**KEYS, **others}).edge_port == 8000


def test_every_setting_explains_itself() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_misspelt_variable_is_refused_by_name() -> None:
    assert complaint(LEASE_MSS="5000").startswith("PENSTOCK_LEASE_MSS: no such setting")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "1025"),
        ("PARTITIONS", "sixteen"),
        ("PARTITIONS", ""),
        ("PARTITIONS", "16.5"),
        ("EDGE_PORT", "65536"),
        ("EDGE_PORT", "-1"),
        ("EDGE_PROCESSES", "0"),
        ("KEY_CACHE_S", "31"),  # a revoked key must stop working within 30 s
        ("LEASE_MS", "0"),
        ("LEASE_MS", "1e999"),
        ("BANK_KEY_HOURS", "24"),  # the bank forgets by then
        ("RECORD_TTL_S", "0"),
        ("ENV", "staging"),
        ("LOG_LEVEL", "loud"),
        ("CONNECTOR", "stripe"),
        ("ALLOW_UNSAFE_REDIS", "perhaps"),
        ("REDIS_URL", "127.0.0.1:6379"),
        ("DATABASE_URL", "mysql://127.0.0.1/penstock"),
        ("BANK_URL", "127.0.0.1:8787"),
        ("WORKER_NAME", "two words"),
        ("WORKER_NAME", "w" * 129),
        ("WORKER_NAME", "händler"),
        ("FAILPOINTS", "after-lunch:kill"),
        ("FAILPOINTS", "after-intent:explode"),
        ("FAILPOINTS", "after-intent:kill@0"),
        ("MASTER_KEY", "short"),
        ("MASTER_KEY", "not base64 at all, but a sentence!"),
        ("MASTER_KEY", base64.b64encode(b"m" * 31).decode()),
        ("FINGERPRINT_KEY", "ключ"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: str) -> None:
    told = complaint(**{name: value})

    assert told.startswith(f"PENSTOCK_{name}: ")
    assert "\n" not in told


def test_all_mistakes_are_told_at_once() -> None:
    told = complaint(EDGE_PORT="x", LEASE_MS="y").splitlines()

    assert [line.partition(":")[0] for line in told] == ["PENSTOCK_EDGE_PORT", "PENSTOCK_LEASE_MS"]


def test_a_complaint_never_shows_a_secret() -> None:
    secret = "hunter2-and-thirty-more-characters-of-it"

    assert secret not in complaint(MASTER_KEY=secret)


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_named_with_how_to_make_one(name: str, value: str | None) -> None:
    told = complaint(**{name.removeprefix("PENSTOCK_"): value})

    assert f"{name} is missing: openssl rand -base64 32" in told


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"RETRY_BASE_MS": "5001"}, ("RETRY_BASE_MS", "RETRY_CAP_MS")),
        ({"PARK_CAP_MS": "4999"}, ("PARK_BASE_MS", "PARK_CAP_MS")),
        ({"SEND_WINDOW_MS": "10000"}, ("SEND_WINDOW_MS", "ATTEMPT_TIMEOUT_MS")),
        ({"ATTEMPTS_MAX": "3"}, ("ATTEMPTS_IN_HAND", "ATTEMPTS_MAX")),
        ({"MASTER_KEY": KEYS["PENSTOCK_FINGERPRINT_KEY"]}, ("MASTER_KEY", "FINGERPRINT_KEY")),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    changes: dict[str, str], named: tuple[str, ...]
) -> None:
    told = complaint(**changes)

    assert all(f"PENSTOCK_{name}" in told for name in named)


def test_production_starts_with_everything_named() -> None:
    assert load_settings(PRODUCTION).env == "production"


@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL", "BANK_URL", "MASTER_KEY", "FINGERPRINT_KEY"])
def test_production_refuses_to_guess(name: str) -> None:
    given = {variable: value for variable, value in PRODUCTION.items() if variable != f"PENSTOCK_{name}"}

    with pytest.raises(SettingsError, match=f"PENSTOCK_{name}"):
        load_settings(given)


@pytest.mark.parametrize(
    ("name", "value"),
    [("FAILPOINTS", "after-intent:kill"), ("CONNECTOR", "instant"), ("CLOCK_OFFSET_FILE", "/tmp/clock")],
)
def test_production_refuses_what_is_for_tests(name: str, value: str) -> None:
    load_settings({**KEYS, f"PENSTOCK_{name}": value})

    with pytest.raises(SettingsError, match=f"PENSTOCK_{name}"):
        load_settings({**PRODUCTION, f"PENSTOCK_{name}": value})


@pytest.mark.parametrize("process", ["edge", "worker"])
def test_a_process_with_a_mistake_says_so_and_does_not_start(process: str) -> None:
    environ = {**KEYS, "PENSTOCK_LEASE_MS": "soon"}

    ended = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", process], env=environ, capture_output=True, text=True, timeout=20
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("penstock: PENSTOCK_LEASE_MS: ")
    assert "Traceback" not in ended.stderr


def test_names_of_workers_differ_by_themselves() -> None:
    assert load_settings(KEYS).worker_name != load_settings(KEYS).worker_name
