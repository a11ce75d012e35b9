"""The object graph of an auditor. Holds no key and asks no bank."""

from __future__ import annotations

from contextlib import closing

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from engine.errors import Unavailable
from engine.ledger.session import connect
from ops.assembly.health import health_app
from ops.assembly.logs import configure_logs
from ops.assembly.process import wall_clock
from ops.assembly.serving import Server, bind, until_signalled
from ops.assembly.settings import Settings
from ops.assembly.store_checks import reaching
from ops.assembly.stores import in_thread
from ops.audit.auditor import Auditor
from ops.audit.watch import Watch
from ops.store_url import Locations

log = structlog.get_logger()

AUDIT_LIMIT = 100  # breaches that the auditor counts per invariant: above it, more is not worse


def run_auditor(settings: Settings) -> None:
    """Look every few seconds until a signal says stop. Needs no key and no bank."""
    configure_logs(settings.log_level, settings.log_format)
    anyio.run(_serve_auditor, settings, backend_options={"use_uvloop": True})


async def _serve_auditor(settings: Settings) -> None:
    listener = bind(settings.edge_host, settings.auditor_port, "PENSTOCK_AUDITOR_PORT")
    registry = CollectorRegistry()
    places = Locations(ledger=settings.database_url, redis=settings.redis_url)
    clock = wall_clock(settings)
    try:
        await in_thread(_see_stores, settings)
    except Unavailable as away:  # it may come: until then each look fails, and the auditor is not ready
        log.warning("store_away", error=away.detail)
    with closing(Auditor(places, grace_s=settings.audit_grace_s, limit=AUDIT_LIMIT, clock=clock)) as auditor:
        watch = Watch(auditor, registry, settings.audit_every_s)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)

            async def auditor_ready() -> tuple[bool, dict[str, object]]:
                return watch.ready, {}

            door = health_app(auditor_ready, registry)
            server = Server(uvicorn.Config(door, log_config=None, access_log=False))
            log.info("auditor_started", port=listener.getsockname()[1])
            await until_signalled(server, listener)
            tasks.cancel_scope.cancel()


def _see_stores(settings: Settings) -> None:
    """Both let us in. Raises Broken, Unavailable."""
    with connect(settings.database_url), reaching(settings.redis_url):
        pass
