"""The bank's settings: environment variables, read once.

The variables of the contract (section 9) keep its rules: a number or duration that does not parse falls back to its
default without a word, a value out of range is an error at the start, and so is a port that is none. Ours
(PENSTOCK_BANK_*) are strict.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.conninfo import make_conninfo

from bank.simulator.card import EXTRA_CARDS_MAX

LOG_LEVELS = ("debug", "info", "warn", "error")
NS_PER_UNIT = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
INTEGER = re.compile(r"[+-]?[0-9]+")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
DIGITS_MAX = 4000  # Python converts no more; so many leading zeros nobody writes.
DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NO_DECIMAL = re.compile(r"[+-]?inf(inity)?|nan", re.IGNORECASE)
HEXADECIMAL = re.compile(r"[+-]?0[xX]([0-9a-fA-F]+(\.[0-9a-fA-F]*)?|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+")


class BankSettingsError(ValueError):
    """A variable has a value the bank cannot start with; the text names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankSettings:
    """Everything the bank is told from outside. Timeouts of 0 or less mean none."""

    host: str = "127.0.0.1"
    port: int = 8787  # 0 is any free port.
    read_timeout_s: float = 15.0  # For a whole request to arrive.
    write_timeout_s: float = 15.0  # For its answer to leave; below the latency every answer is lost after its effect.
    idle_timeout_s: float = 60.0  # For a connection between two requests; 0 is the read timeout.
    database_url: str = "host=localhost port=5432 user=postgres password=postgres dbname=mockbank sslmode=disable"
    db_max_open_conns: int = 25
    db_max_idle_conns: int = 5  # Read for the contract's sake: every connection here stays open.
    db_conn_max_lifetime_s: float = 300.0
    failure_rate: float = 0.05  # 0..1, drawn per request.
    min_latency_ms: int = 100
    max_latency_ms: int = 2000  # Exclusive, unless it equals the minimum.
    auth_expiry_hours: int = 168  # 0 or less: holds are born expired.
    log_level: str = "info"
    hang_up_cancels: bool = True  # Until the commit; without it an abandoned request is executed.
    hang_up_loses_key: bool = True  # Between the commit and the store of the key.
    control: bool = False
    extra_cards: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range, whoever made the settings."""
        if not 0 <= self.port <= 65535:
            raise BankSettingsError(f"PORT must be between 0 and 65535, not {self.port}")
        if self.failure_rate < 0 or self.failure_rate > 1:  # Go lets NaN pass, which never fails a request.
            raise BankSettingsError(f"FAILURE_RATE must be between 0 and 1, not {self.failure_rate}")
        if self.min_latency_ms < 0:
            raise BankSettingsError(f"MIN_LATENCY_MS must not be negative, and it is {self.min_latency_ms}")
        if self.max_latency_ms < self.min_latency_ms:
            raise BankSettingsError(
                f"MAX_LATENCY_MS ({self.max_latency_ms}) must not be below MIN_LATENCY_MS ({self.min_latency_ms})"
            )
        if self.log_level not in LOG_LEVELS:
            raise BankSettingsError(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}, not {self.log_level!r}")
        if not 0 <= self.extra_cards <= EXTRA_CARDS_MAX:
            raise BankSettingsError(
                f"PENSTOCK_BANK_EXTRA_CARDS must be between 0 and {EXTRA_CARDS_MAX}, not {self.extra_cards}"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "BankSettings":
        """Read the variables; raises BankSettingsError."""
        return cls(
            host=environ.get("PENSTOCK_BANK_HOST") or cls().host,
            port=_port(environ, "PORT", 8787),
            read_timeout_s=_duration_s(environ, "SERVER_READ_TIMEOUT", 15.0),
            write_timeout_s=_duration_s(environ, "SERVER_WRITE_TIMEOUT", 15.0),
            idle_timeout_s=_duration_s(environ, "SERVER_IDLE_TIMEOUT", 60.0),
            database_url=environ.get("PENSTOCK_BANK_DATABASE_URL") or _database_url(environ),
            db_max_open_conns=_integer(environ, "DB_MAX_OPEN_CONNS", 25),
            db_max_idle_conns=_integer(environ, "DB_MAX_IDLE_CONNS", 5),
            db_conn_max_lifetime_s=_duration_s(environ, "DB_CONN_MAX_LIFETIME", 300.0),
            failure_rate=_decimal(environ, "FAILURE_RATE", 0.05),
            min_latency_ms=_integer(environ, "MIN_LATENCY_MS", 100),
            max_latency_ms=_integer(environ, "MAX_LATENCY_MS", 2000),
            auth_expiry_hours=_integer(environ, "AUTH_EXPIRY_HOURS", 168),
            log_level=environ.get("LOG_LEVEL") or "info",
            hang_up_cancels=_switch(environ, "PENSTOCK_BANK_HANG_UP_CANCELS", "1"),
            hang_up_loses_key=_switch(environ, "PENSTOCK_BANK_HANG_UP_LOSES_KEY", "1"),
            control=_switch(environ, "PENSTOCK_BANK_CONTROL", "0"),
            extra_cards=_strict_count(environ, "PENSTOCK_BANK_EXTRA_CARDS"),
        )


def _database_url(environ: Mapping[str, str]) -> str:
    return make_conninfo(
        host=environ.get("DB_HOST") or "localhost",
        port=_port(environ, "DB_PORT", 5432),
        user=environ.get("DB_USER") or "postgres",
        password=environ.get("DB_PASSWORD") or "postgres",
        dbname=environ.get("DB_NAME") or "mockbank",
        sslmode=environ.get("DB_SSLMODE") or "disable",
    )


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    """A port is a text to Go, which it only reads when it listens or connects: there is no falling back."""
    text = environ.get(name) or str(default)
    if not INTEGER.fullmatch(text) or len(text) > DIGITS_MAX or not 0 <= int(text) <= 65535:
        raise BankSettingsError(f"{name} must be between 0 and 65535, not {text[:20]!r}")
    return int(text)


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if not INTEGER.fullmatch(text) or len(text) > DIGITS_MAX or not INT64_MIN <= int(text) <= INT64_MAX:
        return default
    return int(text)


def _decimal(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    if NO_DECIMAL.fullmatch(text):
        return float(text)
    if not DECIMAL.fullmatch(text) and not HEXADECIMAL.fullmatch(text):
        return default
    try:
        number = float(text) if DECIMAL.fullmatch(text) else float.fromhex(text)
    except OverflowError:
        return default
    return number if math.isfinite(number) else default


def _duration_s(environ: Mapping[str, str], name: str, default: float) -> float:
    """A Go duration: `1h30m`, `1.5s`, `300ms`, `0`, with an optional sign."""
    text = environ.get(name, "")
    sign, unsigned = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if unsigned == "0":
        return 0.0
    total_ns, at = 0.0, 0
    while part := DURATION_PART.match(unsigned, at):
        total_ns, at = total_ns + float(part[1]) * NS_PER_UNIT[part[2]], part.end()
    if at == 0 or at != len(unsigned):
        return default
    return sign * total_ns / 10**9 if total_ns <= INT64_MAX else default


def _switch(environ: Mapping[str, str], name: str, default: str) -> bool:
    text = environ.get(name) or default
    if text not in ("0", "1"):
        raise BankSettingsError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1"


def _strict_count(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name) or "0"
    if not INTEGER.fullmatch(text):
        raise BankSettingsError(f"{name} must be a whole number, not {text!r}")
    return int(text)
