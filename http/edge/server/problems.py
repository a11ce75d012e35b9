"""The list of problems, served where their `type` points: JSON for programs, a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template

from edge.server import response
from edge.server.request import Request
from edge.server.response import HTML, JSON, Response
from engine.errors import Rejected
from engine.problem import CATALOGUE, ProblemKind, type_uri

_PAGE = Template(files("edge").joinpath("pages/problems.html").read_text("utf-8"))
_VARY = ((b"vary", b"accept"),)


async def every(call: Request) -> Response:
    """GET /problems"""
    if call.prefers_html():
        return _page("Problems", CATALOGUE)
    documents = [_document(code, kind) for code, kind in CATALOGUE.items()]
    return response.of_document({"object": "list", "data": documents}, headers=JSON + _VARY)


async def one(call: Request) -> Response:
    """GET /problems/{code}"""
    code = call.parameter("code")
    kind = CATALOGUE.get(code)
    if kind is None:
        raise Rejected("not_found", "There is no problem with this code. The list is at /problems.")
    if call.prefers_html():
        return _page(kind.title, {code: kind})
    return response.of_document(_document(code, kind), headers=JSON + _VARY)


def _document(code: str, kind: ProblemKind) -> dict[str, object]:
    return {
        "object": "problem_type",
        "type": type_uri(code),
        "code": code,
        "status": kind.status,
        "title": kind.title,
        "meaning": kind.meaning,
    }


def _page(title: str, kinds: Mapping[str, ProblemKind]) -> Response:
    rows = "\n".join(
        f'<section id="{code}"><h2><span class="status s{kind.status // 100}">{kind.status}</span> '
        f'{escape(kind.title)}</h2><p><a href="{type_uri(code)}"><code>{code}</code></a></p>'
        f"<p>{escape(kind.meaning)}</p></section>"
        for code, kind in sorted(kinds.items(), key=lambda item: item[1].status)
    )
    body = _PAGE.substitute(title=escape(title), rows=rows).encode()
    return Response(status=200, body=body, headers=HTML + _VARY)
