"""`penstock listen`: prints webhooks as they arrive, verified, with repeats and order marked; misbehaves on request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

import anyio
import typer
import uvicorn
from starlette.types import Receive, Scope, Send

from engine.errors import Broken
from ops.assembly.serving import Server, bind, obeyed
from ops.listen.receiver import Manners, Receiver
from ops.listen.registration import Registration, registered
from ops.listen.screen import Screen
from ops.stack.data_dir import DataDir

_BODY_BYTES_MAX = 1024 * 1024  # fifty times what we send
_GONE = 410
_LOCAL_EDGE = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """What was asked for on the command line."""

    host: str
    port: int
    secrets: tuple[str, ...]
    public_keys: tuple[str, ...]
    manners: Manners
    slow_s: float
    count: int
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationTarget:
    """Where to register, for whom, as what, and whether to stay registered."""

    edge: str
    api_key: str
    wanted: dict[str, object]
    keep: bool


def listen(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9797,
    secret: Annotated[
        list[str] | None, typer.Option(envvar="WEBHOOK_SECRET", help="whsec_..., of the endpoint; several are tried.")
    ] = None,
    public_key: Annotated[list[str] | None, typer.Option(help="whpk_..., to verify v1a signatures.")] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register an endpoint at the edge, and delete it at the end.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --register: keep it at the end, and say how to go on.")
    ] = False,
    edge: Annotated[
        str | None, typer.Option(help="Where to register; else the stack of --data-dir, or 127.0.0.1:8000.")
    ] = None,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="The folder of the local stack.")] = Path(".penstock"),
    api_key: Annotated[str, typer.Option(help="Of the merchant to register for.")] = "sk_local_merchant",
    events: Annotated[str | None, typer.Option(help="With --register: only these types, comma-separated.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="With --register: events of a payment in order.")] = False,
    schedule: Annotated[
        str | None, typer.Option(help="With --register: seconds between attempts, comma-separated.")
    ] = None,
    ed25519: Annotated[bool, typer.Option("--ed25519", help="With --register: v1a signatures too.")] = False,
    fail: Annotated[int, typer.Option(min=0, max=1_000_000, help="Answer the first N with 500.")] = 0,
    status: Annotated[
        str | None, typer.Option(help="Answer these codes one after the other, the last one for ever: 503,410,200.")
    ] = None,
    slow: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait before each answer.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, max=1_000_000, help="End after so many different events; 0: never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")] = False,
) -> None:
    """A receiver for webhooks: prints events as they arrive, verifies, marks repeats and what is out of order.

    Examples:

      penstock listen --register

      penstock listen --register --ordered --fail 3 --events payment.authorized,payment.captured

      penstock listen --port 9797 --secret whsec_... --status 503,200 --slow 2
    """
    wanted: dict[str, object] = {"ordered": ordered, "ed25519": ed25519, "description": "penstock listen"}
    if not register and (keep or edge or events or ordered or schedule or ed25519):
        raise typer.BadParameter("--keep, --edge, --events, --ordered, --schedule and --ed25519 are for --register")
    if events is not None:
        wanted["events"] = events.split(",")
    if schedule is not None:
        wanted["retry_schedule"] = _numbers(schedule, "--schedule")
    listening = Listening(
        host=host,
        port=port,
        secrets=tuple(secret or ()),
        public_keys=tuple(public_key or ()),
        manners=Manners(fail=fail, codes=_codes(status)),
        slow_s=slow,
        count=count,
        as_json=as_json,
    )
    _receiver(listening.secrets, listening.public_keys, listening.manners)  # wrong ones are told before anything starts
    place = (
        RegistrationTarget(edge=edge or _edge(data_dir), api_key=api_key, wanted=wanted, keep=keep)
        if register
        else None
    )
    anyio.run(_listen, listening, place, backend_options={"use_uvloop": True})


async def _listen(listening: Listening, place: RegistrationTarget | None) -> None:
    listener = bind(listening.host, listening.port, "--port")
    port = listener.getsockname()[1]
    path = f"/{token_urlsafe(9)}" if place else "/"
    url = f"http://{f'[{listening.host}]' if ':' in listening.host else listening.host}:{port}{path}"
    screen = Screen(listening.as_json)
    app = App(screen, listening, only=path if place else None)
    server = Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))

    def stop() -> None:
        server.should_exit = True
        app.ending.set()

    app.enough, again = stop, None
    with obeyed(stop):  # around the registration too: one that is under way is ended, and then taken back
        async with _known(listening, place, url, screen) as (app.receiver, endpoint):
            await server.serve([listener])
    if place is not None and place.keep and endpoint is not None:
        again = f"penstock listen --host {listening.host} --port {port} --secret {endpoint.secret}"
    screen.end(again)


@asynccontextmanager
async def _known(
    listening: Listening, place: RegistrationTarget | None, url: str, screen: Screen
) -> AsyncIterator[tuple[Receiver, Registration | None]]:
    """A receiver that knows its secrets, because it was told them or because it registers now."""
    if place is None:
        screen.begin(url, None, listening.secrets)
        yield _receiver(listening.secrets, listening.public_keys, listening.manners), None
        return
    async with registered(place.edge, place.api_key, {**place.wanted, "url": url}, keep=place.keep) as endpoint:
        screen.begin(url, endpoint.id, (endpoint.secret,))
        secrets = (*listening.secrets, endpoint.secret)
        keys = (*listening.public_keys, *(() if endpoint.public_key is None else (endpoint.public_key,)))
        yield _receiver(secrets, keys, listening.manners), endpoint


class App:
    """The receiver as an ASGI application. `only`: the path of this run; requests to others are for a listener that is
    gone, and 410 has their endpoint disabled. `enough` is called when there were as many events as were asked for."""

    receiver: Receiver  # as soon as its secrets are known, and before anything is served
    enough: Callable[[], None]

    def __init__(self, screen: Screen, listening: Listening, *, only: str | None) -> None:
        self._screen, self._slow_s, self._count, self._only = screen, listening.slow_s, listening.count, only
        self.ending = anyio.Event()  # who is slow is so no longer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more and len(body) <= _BODY_BYTES_MAX:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if self._only is not None and scope["path"] != self._only:
            await _answer(send, _GONE)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        arrival = self.receiver.receive(headers, body, time.time())
        if self._slow_s:
            with anyio.move_on_after(self._slow_s):
                await self.ending.wait()
        self._screen.show(arrival)
        await _answer(send, arrival.status)
        if self._count and self._screen.distinct() >= self._count:
            self.enough()


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"" if status in (204, 304) else f"{status}\n".encode()})


def _receiver(secrets: tuple[str, ...], public_keys: tuple[str, ...], manners: Manners) -> Receiver:
    try:
        return Receiver(secrets, public_keys, manners)
    except ValueError:
        raise Broken("a secret is whsec_ and base64, a public key whpk_ and the base64 of 32 bytes") from None


def _edge(data_dir: Path) -> str:
    try:
        return str(DataDir(data_dir).state()["edge"])
    except Broken:
        return _LOCAL_EDGE


def _codes(text: str | None) -> list[int]:
    codes = [] if text is None else _numbers(text, "--status")
    if any(not 200 <= code <= 599 for code in codes):
        raise typer.BadParameter("--status takes codes from 200 to 599")
    return codes


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} takes numbers, comma-separated, as in 1,2,4") from None
