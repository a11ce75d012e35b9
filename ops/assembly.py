"""The composition root: settings in, running processes out. The object graph of each, about a screen.

Shutdown order is indentation: the server stops taking requests first, the stores close last.
"""

from __future__ import annotations

import gc
import random
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from bank.ficmart import FicmartBank
from bank.instant import InstantBank
from edge.admission import Admission, AdmissionLimits
from edge.app import create_app
from edge.authentication import KeyRing
from edge.server import configuration
from engine.archive import Archive
from engine.audit_log import AuditLog
from engine.breaker import Tolerance
from engine.decision import Decider
from engine.desk import Desk
from engine.enquiry import Enquiry
from engine.errors import Unavailable
from engine.failpoint import Failpoints
from engine.fingerprint import Fingerprinter
from engine.front import AcceptLimits, Front
from engine.gate import Gate
from engine.graveyard import Graveyard
from engine.identity import partition_of
from engine.intake import Intake, IntakeTools
from engine.journal import Journal
from engine.lease import LeaseTerms
from engine.ledger import Ledger
from engine.meters import Meters
from engine.places import Places
from engine.ports import Connector
from engine.reader import ReadLimits
from engine.retry import Policy
from engine.retry_budget import Allowance
from engine.scripts import Scripts
from engine.settlement import Settlement
from engine.stream import CommandStreams
from engine.teller import Teller
from engine.timeline import Timeline
from engine.tools import Tools
from engine.vault import Vault
from engine.wakeup import Wakeups
from engine.worker import Worker, WorkerLimits
from ops.audit.auditor import Auditor
from ops.audit.watch import Watch
from ops.dispatch import serve_dispatcher
from ops.health import health_app
from ops.installation import Locations
from ops.logs import configure_logs
from ops.merchant import refuse_local_keys
from ops.serving import Server, allow_many_files, bind, share, until_signalled
from ops.settings import Settings
from ops.stores import EDGE, WORKER, open_stores
from ops.webhook_desk import webhook_desk

log = structlog.get_logger()

AUDIT_LIMIT = 100  # breaches that the auditor counts per invariant: above it, more is not worse


def now() -> datetime:
    """The clock of the real world."""
    return datetime.now(UTC)


def run_edge(settings: Settings) -> None:
    """Serve until a signal says stop; several processes share one socket when PENSTOCK_EDGE_PROCESSES says so."""
    _check_production(settings)
    listener = bind(settings.edge_host, settings.edge_port, "PENSTOCK_EDGE_PORT")
    if settings.edge_processes == 1:
        _edge_process(settings, listener)
    else:
        share(listener, settings.edge_processes, partial(_edge_process, settings))


def _edge_process(settings: Settings, listener: socket.socket) -> None:
    configure_logs(settings.log_level)
    allow_many_files()
    _tame_collector()
    anyio.run(_serve_edge, settings, listener, backend_options={"use_uvloop": True})


async def _serve_edge(settings: Settings, listener: socket.socket) -> None:
    failpoints, meters_registry = Failpoints(settings.failpoints), CollectorRegistry()
    async with (
        open_stores(settings, EDGE) as stores,
        connected(settings) as connector,
        anyio.create_task_group() as tasks,
    ):
        scripts = Scripts(stores.redis, EDGE.redis_s)
        front, archive = Front(stores.redis, scripts), Archive(stores.pool)
        enquiry = Enquiry(front, archive, stores.partitions, now, settings.record_ttl_s * 1000)
        wakeups = Wakeups(stores.redis, secrets.token_hex(8))
        vault, fingerprinter = Vault(settings.vault_keys), Fingerprinter(settings.fingerprint_key_bytes)
        intake = Intake(
            IntakeTools(
                installation=stores.installation,
                partitions=stores.partitions,
                connector=connector.name,
                front=front,
                archive=archive,
                enquiry=enquiry,
                wakeups=wakeups,
                vault=vault,
                fingerprinter=fingerprinter,
                limits=AcceptLimits(
                    backlog=settings.backlog_max,
                    backlog_headroom=settings.backlog_max + settings.backlog_max // 10,
                    merchant=settings.merchant_backlog_max,
                    merchant_headroom=settings.merchant_backlog_max + settings.merchant_backlog_max // 10,
                    open_operations=settings.mailbox_max,
                ),
                record_ttl_ms=settings.record_ttl_s * 1000,
                clock=now,
                failpoints=failpoints,
                meters=Meters(meters_registry),
            )
        )
        webhooks = webhook_desk(stores.pool, vault, fingerprinter)
        app = create_app(
            intake=intake,
            enquiry=enquiry,
            timeline=Timeline(front, archive, stores.partitions),
            desk=Desk(Graveyard(scripts, stores.partitions), archive, AuditLog(stores.pool), stores.partitions),
            keys=KeyRing(stores.pool),
            subscriptions=webhooks.endpoints,
            deliveries=webhooks.log,
            feed=webhooks.feed,
            targets=settings.webhook_targets,
            clock=now,
            capabilities=dict.fromkeys(connector.capabilities.methods, connector.capabilities),
            probes={"redis": partial(_probe, front.ping), "postgres": partial(_probe, archive.ping)},
            registry=meters_registry,
            admission=Admission(
                AdmissionLimits(
                    in_flight_max=settings.in_flight_max,
                    waiting_max=settings.waiting_max,
                    merchant_rate_per_s=settings.merchant_rate_per_s,
                )
            ),
        )
        for run in (front.run, archive.run, wakeups.run, webhooks.endpoints.run, webhooks.feed.run):
            tasks.start_soon(run)
        server = Server(configuration(app, host=settings.edge_host, port=settings.edge_port))
        await until_signalled(server, listener)
        tasks.cancel_scope.cancel()


def run_worker(settings: Settings) -> None:
    """Work until a signal says stop, then drain."""
    _check_production(settings)
    configure_logs(settings.log_level)
    allow_many_files()
    _tame_collector()
    anyio.run(_serve_worker, settings, backend_options={"use_uvloop": True})


async def _serve_worker(settings: Settings) -> None:
    listener = bind(settings.edge_host, settings.worker_port, "PENSTOCK_WORKER_PORT")
    registry = CollectorRegistry()
    failpoints, meters = Failpoints(settings.failpoints), Meters(registry)
    async with open_stores(settings, WORKER) as stores, connected(settings) as connector:
        scripts = Scripts(stores.redis)
        name = settings.worker_name
        gate = Gate(connector, tolerance_of(settings), allowance_of(settings), meters)
        tools = Tools(
            ledger=Ledger(stores.pool, settings.commit_batch_max, failpoints),
            settlement=Settlement(scripts, settings.record_ttl_s * 1000, failpoints),
            teller=Teller({connector.name: gate}, Vault(settings.vault_keys), now, failpoints, meters),
            decider=Decider(policy_of(settings), Journal(settings.fingerprint_key_bytes), random.Random()),
            clock=now,
            failpoints=failpoints,
            meters=meters,
            places=Places(settings.bank_connections),
            partition_of=partial(partition_of, partitions=stores.partitions),
        )
        lease = LeaseTerms(
            worker=name, partitions=stores.partitions, lease_ms=settings.lease_ms, drain_ms=settings.drain_ms
        )
        read = ReadLimits(batch_entries=settings.read_batch, in_hand_max=settings.in_hand_max)
        limits = WorkerLimits(lease=lease, read=read, sweep_ms=settings.sweep_ms)
        worker = Worker(limits, tools, CommandStreams(stores.redis, scripts, name), scripts)

        def worker_ready() -> tuple[bool, dict[str, object]]:
            """Once the first round of leases is through, and for as long as this worker takes part."""
            return worker.keeper.settled.is_set(), {"partitions": sorted(worker.keeper.tenures)}

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run)
            server = Server(uvicorn.Config(health_app(worker_ready, registry), log_config=None, access_log=False))
            log.info("worker_started", worker=name, port=listener.getsockname()[1])
            await until_signalled(server, listener)
            worker.stop()


def run_auditor(settings: Settings) -> None:
    """Look every few seconds until a signal says stop. Needs no key and no bank."""
    configure_logs(settings.log_level)
    anyio.run(_serve_auditor, settings, backend_options={"use_uvloop": True})


async def _serve_auditor(settings: Settings) -> None:
    listener = bind(settings.edge_host, settings.auditor_port, "PENSTOCK_AUDITOR_PORT")
    registry = CollectorRegistry()
    places = Locations(ledger=settings.database_url, redis=settings.redis_url)
    with closing(Auditor(places, grace_s=settings.audit_grace_s, limit=AUDIT_LIMIT)) as auditor:
        watch = Watch(auditor, registry, settings.audit_every_s)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            door = health_app(lambda: (watch.ready, {}), registry)
            server = Server(uvicorn.Config(door, log_config=None, access_log=False))
            log.info("auditor_started", port=listener.getsockname()[1])
            await until_signalled(server, listener)
            tasks.cancel_scope.cancel()


def run_dispatcher(settings: Settings) -> None:
    """Deliver webhooks until a signal says stop, then finish what is under way."""
    _check_production(settings)
    configure_logs(settings.log_level)
    _tame_collector()
    anyio.run(serve_dispatcher, settings, now, backend_options={"use_uvloop": True})


def _check_production(settings: Settings) -> None:
    """Keys that everybody knows work in the local stack only."""
    if settings.env == "production":
        refuse_local_keys(settings.database_url)


def _tame_collector() -> None:
    """Thousands of short-lived values a second and no cycles among them: look rarely, and never at the modules."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connector]:
    """The connector that the settings name, opened."""
    if settings.connector == "instant":
        yield InstantBank(clock=now)
    else:
        async with FicmartBank(settings.bank_url, clock=now, connections_max=settings.bank_connections) as bank:
            yield bank


def policy_of(settings: Settings) -> Policy:
    return Policy(
        send_window=timedelta(milliseconds=settings.send_window_ms),
        attempt_timeout=timedelta(milliseconds=settings.attempt_timeout_ms),
        attempts_in_hand=settings.attempts_in_hand,
        attempts_max=settings.attempts_max,
        retry_base=timedelta(milliseconds=settings.retry_base_ms),
        retry_cap=timedelta(milliseconds=settings.retry_cap_ms),
        park_base=timedelta(milliseconds=settings.park_base_ms),
        park_cap=timedelta(milliseconds=settings.park_cap_ms),
        bank_key_life=timedelta(hours=settings.bank_key_hours),
        expiry_notice=timedelta(seconds=settings.expiry_notice_s),
        expiry_grace=timedelta(seconds=settings.expiry_grace_s),
    )


def tolerance_of(settings: Settings) -> Tolerance:
    return Tolerance(
        silences_max=settings.breaker_silences,
        rest_s=settings.breaker_rest_ms / 1000,
        rest_cap_s=settings.breaker_rest_cap_ms / 1000,
        probes=settings.breaker_probes,
    )


def allowance_of(settings: Settings) -> Allowance:
    return Allowance(share=settings.retry_share_percent / 100, floor_per_s=settings.retry_floor_per_s)


async def _probe(ping: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await ping()
    except Unavailable as error:
        return error.detail
    return None
