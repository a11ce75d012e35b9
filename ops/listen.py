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
from ops.data_dir import DataDir
from ops.receiver import Manners, Receiver
from ops.registration import registered
from ops.serving import Server, bind, until_signalled
from ops.webhook_screen import Screen

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
    keep: Annotated[bool, typer.Option("--keep", help="With --register: do not delete it at the end.")] = False,
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
    fail: Annotated[int, typer.Option(min=0, help="Answer the first N with 500.")] = 0,
    status: Annotated[
        str | None, typer.Option(help="Answer these codes one after the other, the last one for ever: 503,410,200.")
    ] = None,
    slow: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait before each answer.")] = 0.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many different events; 0: never.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")] = False,
) -> None:
    """A receiver for webhooks: prints events as they arrive, verifies, marks repeats and what is out of order.

    Examples:

      penstock listen --register

      penstock listen --register --ordered --fail 3 --events payment.authorized,payment.captured

      penstock listen --port 9797 --secret whsec_... --status 503,200 --slow 2
    """
    wanted: dict[str, object] = {"ordered": ordered, "ed25519": ed25519, "description": "penstock listen"}
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
    place = (edge or _edge(data_dir), api_key, wanted, keep) if register else None
    anyio.run(_listen, listening, place, backend_options={"use_uvloop": True})


async def _listen(listening: Listening, place: tuple[str, str, dict[str, object], bool] | None) -> None:
    listener = bind(listening.host, listening.port, "--port")
    port = listener.getsockname()[1]
    path = f"/{token_urlsafe(9)}" if place else "/"
    url = f"http://{f'[{listening.host}]' if ':' in listening.host else listening.host}:{port}{path}"
    screen = Screen(listening.as_json)
    async with _known(listening, place, url, screen) as receiver:
        app = App(receiver, screen, slow_s=listening.slow_s, only=path if place else None)
        server = Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        app.enough = lambda: _stop(server, screen, listening.count)
        await until_signalled(server, listener)
    screen.end()


@asynccontextmanager
async def _known(
    listening: Listening, place: tuple[str, str, dict[str, object], bool] | None, url: str, screen: Screen
) -> AsyncIterator[Receiver]:
    """A receiver that knows its secrets, because it was told them or because it registers now."""
    if place is None:
        screen.begin(url, None, listening.secrets)
        yield _receiver(listening.secrets, listening.public_keys, listening.manners)
        return
    edge, api_key, wanted, keep = place
    async with registered(edge, api_key, {**wanted, "url": url}, keep=keep) as endpoint:
        screen.begin(url, endpoint.id, (endpoint.secret,))
        keys = () if endpoint.public_key is None else (endpoint.public_key,)
        yield _receiver((*listening.secrets, endpoint.secret), (*listening.public_keys, *keys), listening.manners)


class App:
    """The receiver as an ASGI application. `only`: the path of this run; requests to others are for a listener that is
    gone, and 410 has their endpoint disabled."""

    def __init__(self, receiver: Receiver, screen: Screen, *, slow_s: float, only: str | None) -> None:
        self._receiver, self._screen, self._slow_s, self._only = receiver, screen, slow_s, only
        self.enough: Callable[[], None] = lambda: None

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
        arrival = self._receiver.receive(headers, body, time.time())
        if self._slow_s:
            await anyio.sleep(self._slow_s)
        self._screen.show(arrival)
        await _answer(send, arrival.status)
        self.enough()


def _stop(server: Server, screen: Screen, count: int) -> None:
    if count and screen.distinct() >= count:
        server.should_exit = True


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
