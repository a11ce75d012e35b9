"""The bank as a process: prepare the database, listen, serve, and on SIGTERM or SIGINT finish what was begun."""

import logging
import signal
import socket
from typing import cast

import uvicorn

from bank.simulator.app import create_app
from bank.simulator.capacity import Capacity, allow_many_files
from bank.simulator.connection import BankProtocol
from bank.simulator.database import BankDatabaseError, prepare_database
from bank.simulator.log import log_as_json
from bank.simulator.settings import BankSettings

SHUTDOWN_S = 30  # How long requests in hand may take to finish after a signal, as in the contract.
BACKLOG = 2048
NEVER_S = 86_400 * 365

logger = logging.getLogger(__name__)


class BankServer(uvicorn.Server):
    """uvicorn, which says in our words when it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            logger.info("bank_listening", extra={"port": port, "host": host})


def run(settings: BankSettings) -> None:
    """Serve until a signal ends it. Raises BankDatabaseError, and OSError when the address cannot be had."""
    log_as_json(settings.log_level)
    try:
        prepare_database(settings.database_url, extra_cards=settings.extra_cards)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (BankDatabaseError, OSError) as error:
        logger.error("bank_failed_to_start", extra={"error": f"failed to start: {error}"})
        raise
    capacity = Capacity(allow_many_files(), needed=settings.db_max_open_conns)
    idle_s = settings.idle_timeout_s or settings.read_timeout_s  # As Go has it.
    config = uvicorn.Config(
        create_app(settings),
        http=type(
            "OurBankProtocol", (BankProtocol,), {"read_timeout_s": settings.read_timeout_s, "capacity": capacity}
        ),
        loop="uvloop",
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=cast(int, idle_s if idle_s > 0 else NEVER_S),  # Any number serves the event loop.
        timeout_graceful_shutdown=SHUTDOWN_S,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
    )
    # uvicorn raises the signal again once it has shut down; with these it finds someone who takes it calmly.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    BankServer(config).run(sockets=[listener])
    logger.info("bank_stopped")
