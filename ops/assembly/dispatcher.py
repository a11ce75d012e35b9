"""The object graph of a dispatcher: settings in, a running process out. Needs Postgres alone.

Shutdown order is indentation: nothing new is claimed first, then deliveries end, and what records them ends last.
"""

from __future__ import annotations

import random
from datetime import timedelta

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from engine.ledger.store_clock import ClockMetrics
from engine.webhooks.delivery import DUE_CHANNEL, NEWS_CHANNEL
from engine.webhooks.dispatcher import Dispatcher, DispatchLimits, DispatchTools
from engine.webhooks.fan_out import FanOut
from engine.webhooks.listener import Listener
from engine.webhooks.metrics import DispatchMetrics
from engine.webhooks.outbox import Outbox
from engine.webhooks.sender import WebhookSender
from engine.webhooks.signer import Signer
from ops.assembly.clocks import compared, store_clock
from ops.assembly.health import health_app
from ops.assembly.logs import configure_logs
from ops.assembly.process import check_production, opened_vault, tame_collector
from ops.assembly.readiness import ledger_fault
from ops.assembly.serving import Server, bind, until_signalled
from ops.assembly.settings import Settings
from ops.assembly.stores import WORKER, open_ledger

log = structlog.get_logger()


def run_dispatcher(settings: Settings) -> None:
    """Deliver webhooks until a signal says stop, then finish what is under way."""
    check_production(settings)
    configure_logs(settings.log_level, settings.log_format)
    tame_collector()
    anyio.run(_serve_dispatcher, settings, backend_options={"use_uvloop": True})


async def _serve_dispatcher(settings: Settings) -> None:
    """Until a signal says stop; then what is under way ends and is recorded."""
    clock = store_clock(settings)
    listener = bind(settings.edge_host, settings.dispatcher_port, "PENSTOCK_DISPATCHER_PORT")
    registry = CollectorRegistry()
    async with (
        open_ledger(settings, WORKER) as ledger,
        opened_vault("dispatcher", settings, ledger.pool, ledger.installation, ledger.fitness) as vault,
        WebhookSender(settings.webhook_targets, timeout_ms=settings.webhook_timeout_ms) as sender,
    ):
        pool = ledger.pool
        watch = await compared(settings, clock, ledger.fitness, ClockMetrics(registry), pool)
        patience = timedelta(hours=settings.webhook_disable_h)
        context = DispatchTools(
            outbox=Outbox(pool, clock.now, lease_ms=settings.webhook_lease_ms, patience=patience),
            signer=Signer(pool, vault),
            sender=sender,
            clock=clock.now,
            draw=random.Random(),
            meters=DispatchMetrics(registry),
        )
        limits = DispatchLimits(
            places=settings.webhook_connections,
            lane_places=settings.webhook_lane_max,
            send_ms=settings.webhook_lease_ms - settings.webhook_timeout_ms,
        )
        dispatcher = Dispatcher(limits, context)
        fan_out = FanOut(context.outbox, dispatcher.told)
        notifications = Listener(pool, {NEWS_CHANNEL: fan_out.ring, DUE_CHANNEL: dispatcher.ring})
        async with anyio.create_task_group() as lifetime:
            for run in (context.outbox.run, notifications.run, dispatcher.watch, watch.run):
                lifetime.start_soon(run)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dispatcher.run)
                tasks.start_soon(fan_out.run)

                async def dispatcher_ready() -> tuple[bool, dict[str, object]]:
                    """While it looks for deliveries, fits, and can claim one."""
                    fault = await ledger_fault(pool)
                    ready = dispatcher.ready and ledger.fitness.fits and fault is None
                    return ready, {**({"failing": {"postgres": fault}} if fault else {}), **ledger.fitness.told()}

                server = Server(
                    uvicorn.Config(health_app(dispatcher_ready, registry), log_config=None, access_log=False)
                )
                log.info("dispatcher_started", port=listener.getsockname()[1])
                await until_signalled(server, listener)
                fan_out.stop()
                dispatcher.stop()
            lifetime.cancel_scope.cancel()
