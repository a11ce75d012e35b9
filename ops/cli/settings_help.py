"""The variables of each process, as its --help prints them: made from the settings themselves."""

from __future__ import annotations

from ops.assembly.settings import PREFIX, Settings
from ops.secret_file import SECRETS, SUFFIX
from ops.terminal import print_table

_OWN = {
    "migrate": ("env", "database_url", "partitions"),
    "auditor": (
        *("env", "redis_url", "database_url", "edge_host"),
        *("auditor_port", "audit_every_s", "audit_grace_s", "log_level"),
    ),
}
_BANK = (
    ("PORT", "8787", "port to listen on; 0 takes any free one"),
    ("PENSTOCK_BANK_HOST", "127.0.0.1", "address to listen on"),
    ("PENSTOCK_BANK_DATABASE_URL", "", "Postgres DSN; or DB_HOST, DB_PORT, DB_USER, DB_PASSWORD, DB_NAME, DB_SSLMODE"),
    ("FAILURE_RATE", "0.05", "share of calls answered 500 before their effect, 0 to 1"),
    ("MIN_LATENCY_MS, MAX_LATENCY_MS", "100, 2000", "how long a call takes"),
    ("AUTH_EXPIRY_HOURS", "168", "how long a hold lasts"),
    ("LOG_LEVEL", "info", "debug, info, warn or error"),
    ("PENSTOCK_BANK_HANG_UP_CANCELS", "1", "a hang-up stops what is not yet committed; 0: it is executed"),
    ("PENSTOCK_BANK_HANG_UP_LOSES_KEY", "1", "a hang-up before the key is stored loses it; 0: it is kept"),
    ("PENSTOCK_BANK_CONTROL", "0", "1 switches the control API for faults on"),
    ("PENSTOCK_BANK_EXTRA_CARDS", "0", "more seeded cards, for load"),
)


def print_settings(process: str) -> None:
    """A table of variable, default and meaning, in the order of the settings, and which may be in files."""
    rows = _BANK if process == "bank" else _rows(process)
    print_table(("variable", "default~", "meaning"), rows)
    files = [f"{name}{SUFFIX}" for name, _, _ in rows if name in SECRETS]
    print(f"\nSecrets out of files, instead of the variables themselves: {', '.join(files)}")


def _rows(process: str) -> list[tuple[str, str, str]]:
    names = _OWN.get(process, tuple(Settings.model_fields))
    rows = []
    for name in names:
        field = Settings.model_fields[name]
        default = "required" if name.endswith("_key") else str(field.default)
        rows.append((f"{PREFIX}{name.upper()}", default, field.description or ""))
    return rows
