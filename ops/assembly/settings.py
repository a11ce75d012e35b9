"""Settings of the processes: PENSTOCK_* variables, read once, validated with their relations before anything starts.

Each has its unit, the reason for its default and what breaks at the extremes, in one line of help. An unknown PENSTOCK_
variable is an error: a typo in a setting that guards money must not pass in silence.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import socket
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from engine.contracts.url_policy import UrlPolicy, networks
from engine.errors import PenstockError
from engine.failpoint import Failpoints
from ops.secret_file import SecretFileError, variables
from ops.store_url import judged_http, judged_postgres, judged_redis

PREFIX = "PENSTOCK_"
# Variables of the bank simulator and of the local stack, which share our prefix.
OTHERS = frozenset(
    {
        "PENSTOCK_BANK_DATABASE_URL",
        "PENSTOCK_BANK_CONTROL",
        "PENSTOCK_BANK_EXTRA_CARDS",
        "PENSTOCK_BANK_HANG_UP_CANCELS",
        "PENSTOCK_BANK_HANG_UP_LOSES_KEY",
        "PENSTOCK_BANK_HOST",
        "PENSTOCK_REDIS_SERVER",
        "PENSTOCK_PARENT_PID",
    }
)
# Those of .env.example.
EXAMPLE_KEYS = frozenset(
    {"ZXhhbXBsZSBtYXN0ZXIga2V5OiBOT1QgQSBTRUNSRVQ=", "ZXhhbXBsZSBmaW5nZXJwcmludDogTk8gU0VDUkVUISE="}
)
_KEY_BYTES = 32
_KEY_IDS = re.compile(r"\s*([0-9a-fA-F]{8}\s*(,\s*[0-9a-fA-F]{8}\s*)*)?")


class SettingsError(PenstockError):
    """A setting is wrong; the text names the variable and says what to do."""


class Settings(BaseModel):
    """What a process needs to know. Durations carry their unit in the name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: Literal["local", "production"] = Field("local", description="production refuses test keys and failpoints")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey, 7.0 or newer")
    database_url: str = Field("postgresql://127.0.0.1:5432/penstock", description="Postgres DSN of the ledger")
    partitions: int = Field(16, ge=1, le=1024, description="fixed when the database is initialised; shares of work")
    master_key: SecretStr = Field(SecretStr(""), description="base64 of 32 bytes that seal cards")
    retired_master_keys: SecretStr = Field(
        SecretStr(""), description="earlier master keys, comma-separated: they open what they sealed and seal no more"
    )
    lost_master_keys: str = Field(
        "", description="ids of master keys that are gone for good, comma-separated: what they sealed is for a person"
    )
    key_holder_s: int = Field(
        15, ge=1, le=3600, description="how long a rotation waits for a silent process; the same in all processes"
    )
    fingerprint_key: SecretStr = Field(
        SecretStr(""), description="base64 of 32 bytes, permanent: with another one no old key would match its payload"
    )

    edge_host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 behind a load balancer")
    edge_port: int = Field(8000, ge=0, le=65535, description="0 takes any free port")
    edge_processes: int = Field(1, ge=1, le=64, description="processes that share the port; one a core is enough")
    edge_metrics_port: int = Field(
        0,
        ge=0,
        le=65_472,
        description="health and metrics of the first of several processes, on 127.0.0.1; the others' ports follow. 0: "
        "any free ones; `/metrics` tells all of them anyway",
    )
    edge_linger_s: float = Field(
        2.0,
        ge=0,
        le=300,
        description="how long a stopping edge, no longer ready, goes on taking connections: above the time until load "
        "balancers know",
    )
    edge_tls_cert_file: str = Field(
        "", description="PEM file of the certificate and those that signed it, for HTTPS; read again when it changes"
    )
    edge_tls_key_file: str = Field("", description="PEM file of its private key, without a passphrase")
    key_cache_s: int = Field(15, ge=1, le=30, description="how old a cached API key may be; revocation works by then")
    backlog_max: int = Field(
        20_000, ge=1, le=10_000_000, description="entries a partition may hold; beyond, new work is refused with 503"
    )
    merchant_backlog_max: int = Field(
        1500,
        ge=1,
        le=10_000_000,
        description="entries of one merchant in a partition, or 429; above in_hand_max others wait unread behind it",
    )
    merchant_rate_per_s: int = Field(
        5000, ge=1, le=1_000_000, description="calls of one merchant per edge process, reads apart; beyond, 429"
    )
    in_flight_max: int = Field(
        2000, ge=2, le=100_000, description="calls an edge process handles at once, reads apart; half for one merchant"
    )
    waiting_max: int = Field(
        2000,
        ge=2,
        le=100_000,
        description="clients that may wait, for an outcome or for events; beyond, they are answered at once",
    )
    mailbox_max: int = Field(64, ge=1, le=10_000, description="unanswered operations of one payment")
    record_ttl_s: int = Field(
        900, ge=1, le=30 * 86_400, description="answers Redis replays by itself; older ones come from Postgres"
    )

    worker_name: str = Field(
        "", validate_default=True, description="unique among live workers; made from host, pid and chance when empty"
    )
    worker_port: int = Field(0, ge=0, le=65535, description="health and metrics of the worker; 0 takes any free port")
    lease_ms: int = Field(
        5000, ge=200, le=300_000, description="a dead worker's partitions rest this long; short ones suffer from pauses"
    )
    drain_ms: int = Field(15_000, ge=0, le=600_000, description="how long a stopping worker finishes what it holds")
    sweep_ms: int = Field(1000, ge=10, le=60_000, description="how often parked work is looked for")
    in_hand_max: int = Field(2000, ge=1, le=1_000_000, description="entries held per partition: memory against latency")
    read_batch: int = Field(200, ge=1, le=10_000, description="entries per read")
    commit_batch_max: int = Field(300, ge=1, le=10_000, description="payments per group commit: throughput, latency")

    auditor_port: int = Field(0, ge=0, le=65535, description="health and metrics of the auditor; 0 takes any free port")
    audit_every_s: float = Field(
        30.0, ge=1, le=3600, description="how often the auditor looks; a look costs the same on any ledger"
    )
    audit_grace_s: float = Field(
        60.0,
        ge=5,
        le=3600,
        description="how late something due may be before it counts as a breach; above the longest attempt",
    )

    connector: Literal["ficmart_bank", "instant"] = Field("ficmart_bank", description="instant approves all, for load")
    bank_url: str = Field("http://127.0.0.1:8787", description="base URL of the bank")
    bank_connections: int = Field(512, ge=1, le=65_535, description="calls in flight at the bank, per worker")
    attempt_timeout_ms: int = Field(
        10_000, ge=10, le=600_000, description="above the bank's worst latency, or attempts overlap there"
    )
    bank_worst_latency_ms: int = Field(
        0,
        ge=0,
        le=600_000,
        description="how long a working bank takes at most; an unanswered request is repeated this long after the bank "
        "answered a later one. 0: the attempt time-out",
    )
    send_window_ms: int = Field(2000, ge=10, le=60_000, description="from an attempt's commit to its last socket write")
    attempts_in_hand: int = Field(4, ge=1, le=100, description="attempts before an unanswered operation is parked")
    attempts_max: int = Field(200, ge=1, le=100_000, description="attempts before a person is asked")
    retry_base_ms: int = Field(200, ge=1, le=600_000, description="bound of the first back-off; it doubles")
    retry_cap_ms: int = Field(5000, ge=1, le=3_600_000, description="bound of any back-off in hand")
    park_base_ms: int = Field(5000, ge=1, le=3_600_000, description="shortest parking")
    park_cap_ms: int = Field(300_000, ge=1, le=86_400_000, description="bound of what back-off adds to a parking")
    breaker_silences: int = Field(
        50, ge=1, le=100_000, description="attempts without an answer in a row before a bank is left alone for a while"
    )
    breaker_rest_ms: int = Field(
        1000, ge=10, le=600_000, description="the first such rest; it doubles while the bank stays silent"
    )
    breaker_rest_cap_ms: int = Field(30_000, ge=10, le=3_600_000, description="bound of that rest")
    breaker_probes: int = Field(3, ge=1, le=1000, description="calls at once that try whether the bank is back")
    retry_share_percent: int = Field(
        20, ge=0, le=1000, description="repeated attempts as a share of fresh ones, so that retries never are the load"
    )
    retry_floor_per_s: int = Field(
        50, ge=1, le=100_000, description="repeated attempts a second beside that share, per worker"
    )
    bank_key_hours: int = Field(
        23, ge=1, le=23, description="the bank forgets keys at 24 h; asking later charges twice"
    )
    expiry_notice_s: int = Field(
        86_400,
        ge=0,
        le=7 * 86_400,
        description="how long before an authorization expires its merchant is told (`payment.expiring`); 0: never",
    )
    expiry_grace_s: int = Field(
        300, ge=0, le=86_400, description="from an authorization's expiry until its hold is given back: clocks differ"
    )

    dispatcher_port: int = Field(
        0, ge=0, le=65535, description="health and metrics of the dispatcher; 0 takes any free port"
    )
    webhook_timeout_ms: int = Field(15_000, ge=10, le=60_000, description="how long an endpoint may take to answer")
    webhook_lease_ms: int = Field(
        20_000, ge=100, le=300_000, description="what a dead dispatcher had claimed rests this long; above the timeout"
    )
    webhook_connections: int = Field(
        1000, ge=1, le=65_535, description="webhooks under way, per dispatcher: memory and sockets"
    )
    webhook_lane_max: int = Field(
        20, ge=1, le=10_000, description="webhooks under way to one endpoint, per dispatcher: what a shop must bear"
    )
    webhook_disable_h: int = Field(
        120,
        ge=1,
        le=8760,
        description="an endpoint that fails for so long, again and again and without one success, is disabled",
    )
    webhook_inside: str = Field(
        "", description="networks that webhooks may reach though they are not public, as in 10.1.0.0/16,::1/128"
    )

    clock_skew_max_ms: int = Field(
        2000,
        ge=100,
        le=60_000,
        description="a process whose clock differs by more from both stores' takes no part; NTP keeps it below 100 ms",
    )
    failpoints: str = Field("", description="name:kill|stop|raise[@n], for tests; refused in production")
    clock_offset_file: str = Field(
        "", description="path of a file with seconds that this process's clock is wrong by; refused in production"
    )
    allow_unsafe_redis: bool = Field(False, description="start on a Redis that may lose or evict accepted work")
    allow_unsafe_postgres: bool = Field(False, description="start on a Postgres that may lose commits")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lines below it are dropped")
    log_format: Literal["json", "console"] = Field("json", description="of each line, also of libraries and crashes")
    request_log: bool = Field(True, description="edges log one line for each request, at level info")

    @property
    def vault_keys(self) -> list[bytes]:
        """The master key first, then the retired ones."""
        return [_key(self.master_key), *_keys(self.retired_master_keys)]

    @property
    def lost_key_ids(self) -> list[str]:
        return [part.strip().lower() for part in self.lost_master_keys.split(",") if part.strip()]

    @property
    def fingerprint_key_bytes(self) -> bytes:
        return _key(self.fingerprint_key)

    @field_validator("worker_name")
    @classmethod
    def _named(cls, name: str) -> str:
        if name and (len(name) > 128 or not name.isascii() or not name.isprintable() or " " in name):
            raise ValueError("use 1 to 128 printable ASCII characters without spaces")
        return name or f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(3)}"

    @field_validator("failpoints")
    @classmethod
    def _armed(cls, text: str) -> str:
        Failpoints(text)
        return text

    @property
    def webhook_targets(self) -> UrlPolicy:
        return UrlPolicy(https_only=self.env == "production", inside=networks(self.webhook_inside))

    @field_validator("webhook_inside")
    @classmethod
    def _networks(cls, text: str) -> str:
        networks(text)
        return text

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str) -> str:
        return judged_redis(url)

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: str) -> str:
        return judged_postgres(url)

    @field_validator("bank_url")
    @classmethod
    def _http(cls, url: str) -> str:
        return judged_http(url)

    @field_validator("master_key", "fingerprint_key")
    @classmethod
    def _thirty_two_bytes(cls, key: SecretStr) -> SecretStr:
        if key.get_secret_value() and len(_key(key)) != _KEY_BYTES:
            raise ValueError("must be base64 of 32 random bytes: openssl rand -base64 32")
        return key

    @field_validator("lost_master_keys")
    @classmethod
    def _key_ids(cls, text: str) -> str:
        if not _KEY_IDS.fullmatch(text):
            raise ValueError("use the ids that `penstock master-key status` shows, 8 hex digits, with commas between")
        return text

    @field_validator("retired_master_keys")
    @classmethod
    def _each_thirty_two_bytes(cls, keys: SecretStr) -> SecretStr:
        if any(len(key) != _KEY_BYTES for key in _keys(keys)):
            raise ValueError("each must be base64 of 32 bytes, with commas between them")
        return keys

    @model_validator(mode="after")
    def _related(self) -> Self:
        for wrong, message in (
            (not self.master_key.get_secret_value(), "PENSTOCK_MASTER_KEY is missing: openssl rand -base64 32"),
            (
                not self.fingerprint_key.get_secret_value(),
                "PENSTOCK_FINGERPRINT_KEY is missing: openssl rand -base64 32",
            ),
            (
                bool(self.master_key.get_secret_value()) and self.master_key == self.fingerprint_key,
                "PENSTOCK_MASTER_KEY and PENSTOCK_FINGERPRINT_KEY must differ: one is rotated, the other never",
            ),
            (
                bool(self.edge_tls_cert_file) != bool(self.edge_tls_key_file),
                "PENSTOCK_EDGE_TLS_CERT_FILE and PENSTOCK_EDGE_TLS_KEY_FILE go together: set both, or neither",
            ),
            (self.retry_base_ms > self.retry_cap_ms, "PENSTOCK_RETRY_BASE_MS must not exceed PENSTOCK_RETRY_CAP_MS"),
            (
                self.breaker_rest_ms > self.breaker_rest_cap_ms,
                "PENSTOCK_BREAKER_REST_MS must not exceed PENSTOCK_BREAKER_REST_CAP_MS",
            ),
            (self.park_base_ms > self.park_cap_ms, "PENSTOCK_PARK_BASE_MS must not exceed PENSTOCK_PARK_CAP_MS"),
            (
                self.send_window_ms >= self.attempt_timeout_ms,
                "PENSTOCK_SEND_WINDOW_MS must be below PENSTOCK_ATTEMPT_TIMEOUT_MS",
            ),
            (
                self.bank_worst_latency_ms > self.attempt_timeout_ms,
                "PENSTOCK_BANK_WORST_LATENCY_MS must not exceed PENSTOCK_ATTEMPT_TIMEOUT_MS",
            ),
            (
                self.attempts_in_hand > self.attempts_max,
                "PENSTOCK_ATTEMPTS_IN_HAND must not exceed PENSTOCK_ATTEMPTS_MAX",
            ),
            (
                self.webhook_timeout_ms >= self.webhook_lease_ms,
                "PENSTOCK_WEBHOOK_TIMEOUT_MS must be below PENSTOCK_WEBHOOK_LEASE_MS, or deliveries overlap",
            ),
            (
                self.webhook_lane_max > self.webhook_connections,
                "PENSTOCK_WEBHOOK_LANE_MAX must not exceed PENSTOCK_WEBHOOK_CONNECTIONS",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _fit_for_production(self) -> Self:
        if self.env != "production":
            return self
        keys = {self.master_key.get_secret_value(), self.fingerprint_key.get_secret_value()}
        for wrong, message in (
            (bool(self.failpoints), "PENSTOCK_FAILPOINTS is for tests: unset it in production"),
            (
                bool(self.clock_offset_file),
                "PENSTOCK_CLOCK_OFFSET_FILE sets a clock wrong for tests: unset it in production",
            ),
            (self.connector == "instant", "PENSTOCK_CONNECTOR=instant charges nobody: unset it in production"),
            (
                not {"redis_url", "database_url", "bank_url"} <= self.model_fields_set,
                "production needs PENSTOCK_REDIS_URL, PENSTOCK_DATABASE_URL and PENSTOCK_BANK_URL by name",
            ),
            (
                not EXAMPLE_KEYS.isdisjoint(keys),
                "PENSTOCK_MASTER_KEY or PENSTOCK_FINGERPRINT_KEY is the one of .env.example, which everybody knows: "
                "openssl rand -base64 32",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self


def keyless(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of a process that opens nothing sealed and asks no bank: stand-ins satisfy the rules about those."""
    names = ("PENSTOCK_MASTER_KEY", "PENSTOCK_FINGERPRINT_KEY")
    keys = {name: base64.b64encode(name.encode().ljust(_KEY_BYTES)[-_KEY_BYTES:]).decode() for name in names}
    return load_settings({**keys, "PENSTOCK_BANK_URL": "http://127.0.0.1", **variables(environ)})


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in the environment. Raises SettingsError with one line per mistake."""
    try:
        names = variables(environ)
    except SecretFileError as error:
        raise SettingsError(str(error)) from None
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OTHERS
    unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"{', '.join(unknown)}: no such setting; `penstock edge --help` lists them")
    given = {name.removeprefix(PREFIX).lower(): value for name, value in names.items() if name in known - OTHERS}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(dict(detail)) for detail in error.errors())) from None


def _sentence(detail: dict[str, object]) -> str:
    """One mistake in words: the variable, what is wrong. Never its value: it may be a secret."""
    where = detail["loc"]
    text = str(detail["msg"]).removeprefix("Value error, ")
    if isinstance(where, tuple) and where:
        return f"{PREFIX}{str(where[0]).upper()}: {text}"
    return text


def _keys(listed: SecretStr) -> list[bytes]:
    return [_key(SecretStr(part.strip())) for part in listed.get_secret_value().split(",") if part.strip()]


def _key(secret: SecretStr) -> bytes:
    return decoded_key(secret.get_secret_value())


def decoded_key(text: str) -> bytes:
    """A key out of a variable or a file. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("must be base64 of 32 random bytes: openssl rand -base64 32") from None
