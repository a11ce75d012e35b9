"""The documentation pages: Swagger UI, all of it from this machine, and the OpenAPI document it shows."""

from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from swagger_ui_bundle import swagger_ui_path

PACKAGE = files("bank.simulator")
# The bundle carries ten times as much; the page needs these.
ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


def docs_routes() -> list[Route]:
    """GET /docs, /docs/openapi and what the page loads, read once."""
    page = _constant(HTMLResponse((PACKAGE / "docs.html").read_bytes()))
    document = _constant(Response((PACKAGE / "openapi.json").read_bytes(), media_type="application/json"))
    assets = [
        Route(f"/docs/{name}", _constant(Response((swagger_ui_path / name).read_bytes(), media_type=media_type)))
        for name, media_type in ASSETS.items()
    ]
    return [Route("/docs", page), Route("/docs/openapi", document), *assets]


def _constant(response: Response) -> Any:
    async def endpoint(request: Request) -> Response:
        return response

    return endpoint
