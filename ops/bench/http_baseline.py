"""The yardstick of the bench: what one bare HTTP request costs on this machine, in the same minute.

A machine, above all a rented one, may be three times as fast as another that looks the same, and as itself an hour ago.
So a payment's cost is also told in bare requests: a JSON POST to Starlette on uvicorn that does nothing, offered by the
same generator. That ratio travels. Run as a module it serves that endpoint.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import orjson
import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ops.bench.load import Load
from ops.bench.run import TrialFailed, run_trial

RATE_PER_S = 8000.0  # a busy process, as the one it is compared with: idle, each request costs a turn of its loop
SECONDS = 2.0
_READY_WITHIN_S = 20.0


def bare_request_us() -> float:
    """CPU microseconds of one bare request. Raises TrialFailed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        served = subprocess.Popen(
            [sys.executable, "-m", "ops.bench.http_baseline", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url)
        load = Load(
            url=url, api_key="none", run="bare", rate_per_s=RATE_PER_S, warmup_s=0, seconds=SECONDS, cards=["4" * 16]
        )
        process = psutil.Process(served.pid)
        before = sum(process.cpu_times()[:2])
        answered = run_trial(load, None, lambda share, doing: None).figures.accepted
        spent = sum(process.cpu_times()[:2]) - before
    finally:
        served.kill()
        served.wait()
    if not answered:
        raise TrialFailed("the bare endpoint answered nothing, so there is no yardstick")
    return round(spent / answered * 1e6, 1)


def wait_for(url: str) -> None:
    """Until `/ready` there answers. Raises TrialFailed."""
    patience = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < patience:
        try:
            urllib.request.urlopen(f"{url}/ready", timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TrialFailed(f"a bare endpoint was not ready within {_READY_WITHIN_S:.0f} s")


async def _accept(request: Request) -> Response:
    document = orjson.loads(await request.body())
    body = orjson.dumps({"object": "payment", "status": "pending", "order_id": document["order_id"]})
    return Response(body, status_code=202, media_type="application/json")


async def _ready(request: Request) -> Response:
    return Response()


def serve(listener: socket.socket) -> None:
    """Until killed."""
    app = Starlette(routes=[Route("/v1/payments", _accept, methods=["POST"]), Route("/ready", _ready)])
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_config=None)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
