"""Paths as Go's ServeMux reads them: tidied and cut at their slashes while still escaped, each piece unescaped last.

So `%2F` is a character of its piece and no slash, and `%2e%2e` is a name and no way up. The layers outside this one go
by the unescaped path, as the contract's do: a request for `/api/v1%2Fvoids` sleeps, gets a kept answer, else 404.
"""

import posixpath
import re
from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

UNTIDY = re.compile(rb"%|//|/\.")
NEVER_BARE = re.compile(rb'[^!-~]|["<>\\^`{|}]')  # With one of these in it Go escapes the whole path anew.
NO_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
BARE = "/$&+,:;=@"  # Of those that quote() would escape.
NO_DELIMITER = str.maketrans({"/": "\ue000", "\n": "\ue000"})  # No route and no identifier has this character.
HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})


class BadEscape(ValueError):
    """A percent sign without two hexadecimal digits behind it; the text is Go's."""


class Pieces:
    """The innermost ASGI layer: sends the client to the tidy path, and the router a path that it reads as Go does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and UNTIDY.search(scope["raw_path"]):
            escaped = _escaped(scope["raw_path"])
            tidy = _tidy(escaped)
            if tidy != escaped:
                query = scope["query_string"].decode("latin-1")
                location = quote(tidy, safe=BARE) + (f"?{query}" if query else "")
                await moved(Request(scope), location)(scope, receive, send)
                return
            scope["path"] = "/".join(map(_piece, tidy.split("/")))
        await self.app(scope, receive, send)


def moved(request: Request, location: str) -> Response:
    """301 in the words of Go's http.Redirect."""
    if request.method not in ("GET", "HEAD"):
        return Response(status_code=301, headers={"Location": location})
    page = f'<a href="{location.translate(HTML)}">Moved Permanently</a>.\n\n'
    return HTMLResponse(page, 301, headers={"Location": location})


def unescape(text: str) -> str:
    """What the contract's bank makes of an identifier in a path, which it unescapes once more; raises BadEscape."""
    if "%" not in text:
        return text
    if bad := NO_ESCAPE.search(text):
        raise BadEscape(f'invalid URL escape "{bad[0]}"')
    return unquote(text)


def _escaped(raw: bytes) -> str:
    return quote(unquote_to_bytes(raw), safe=BARE) if NEVER_BARE.search(raw) else raw.decode("ascii")


def _tidy(path: str) -> str:
    tidy = posixpath.normpath(f"/{path.lstrip('/')}")
    return f"{tidy}/" if path.endswith("/") and tidy != "/" else tidy


def _piece(escaped: str) -> str:
    piece = unquote(escaped)
    return "" if piece == "/" else piece.translate(NO_DELIMITER)
