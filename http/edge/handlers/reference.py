"""The first page and the reference for people: Swagger UI from the installed bundle, no network needed.

The bundled Swagger UI reads OpenAPI 3.0 only, so it is given the document in that dialect; the real one is 3.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import orjson
import swagger_ui_bundle

from edge.openapi.description import Json
from edge.server import response
from edge.server.request import Request
from edge.server.response import HTML, JSON, Response
from engine.errors import Rejected

_PAGES = files("edge").joinpath("pages")
_VENDOR = Path(str(swagger_ui_bundle.swagger_ui_path))
_VARY = ((b"vary", b"accept"),)
_CACHED = (b"cache-control", b"public, max-age=86400")
_VENDORED: Mapping[str, bytes] = {
    "swagger-ui.css": b"text/css; charset=utf-8",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "favicon-32x32.png": b"image/png",
}


# Where to go from the address of the gateway; a browser gets the same as a page.
_HOME: Mapping[str, str] = {
    "object": "gateway",
    "name": "Penstock",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "problems": "/problems",
    "ready": "/readyz",
}


class Reference:
    """The endpoints /, /openapi.json, /docs and what the pages load."""

    def __init__(self, description: Json) -> None:
        self._description = orjson.dumps(description)
        self._in_3_0 = orjson.dumps(_in_3_0(description))
        self._consumer = _PAGES.joinpath("home.html").read_bytes()
        self._page = _PAGES.joinpath("docs.html").read_bytes()
        self._start = _PAGES.joinpath("start.js").read_bytes()

    async def home(self, call: Request) -> Response:
        """GET /"""
        if call.prefers_html():
            return Response(status=200, body=self._consumer, headers=HTML + _VARY)
        return response.of_document(_HOME, headers=JSON + _VARY)

    async def openapi(self, call: Request) -> Response:
        """GET /openapi.json"""
        return Response(status=200, body=self._description)

    async def docs(self, call: Request) -> Response:
        """GET /docs"""
        return Response(status=200, body=self._page, headers=HTML)

    async def asset(self, call: Request) -> Response:
        """GET /docs/{asset}"""
        name = call.parameter("asset")
        if name == "openapi-3.0.json":
            return Response(status=200, body=self._in_3_0, headers=JSON)
        if name == "start.js":
            return Response(
                status=200, body=self._start, headers=((b"content-type", b"text/javascript; charset=utf-8"),)
            )
        media_type = _VENDORED.get(name)
        if media_type is None:
            raise Rejected("not_found", "There is no such file. The reference is at /docs.")
        body = await asyncio.to_thread((_VENDOR / name).read_bytes)
        return Response(status=200, body=body, headers=((b"content-type", media_type), _CACHED))


def _in_3_0(document: Json) -> Json:
    """The same document in the older dialect: null as `nullable`, one example, no const."""
    older: Json = {name: _older(part) for name, part in document.items() if name != "webhooks"}
    match older:
        case {"info": {"summary": _, "license": {"name": name}, **info}}:
            older["info"] = {**info, "license": {"name": name}}
    return older | {"openapi": "3.0.3"}


def _older(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_older(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: _older(item) for name, item in value.items() if name != "propertyNames"}
    if "const" in value:
        value["enum"] = [value.pop("const")]
    examples = value.get("examples")
    if isinstance(examples, list):
        del value["examples"]
        value["example"] = examples[0]
    match value.get("type"):
        case [kind, "null"]:
            value |= {"type": kind, "nullable": True}
    choices = value.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        others = [choice for choice in choices if choice != {"type": "null"}]
        del value["anyOf"]
        value.update({**others[0]} if "$ref" not in others[0] else {"allOf": others}, nullable=True)
    return value
