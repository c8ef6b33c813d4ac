"""The files that pages refer to, shipped with the package: the stylesheet and the mark in the browser's tab."""

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

from cdb_server.pages.page import Page
from cdb_server.pages.rendering import SECURITY

# The only ones that are given, whatever lies in the folder.
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATIC_PATH = "/static/{name}"
_FOR_EVER = "public, max-age=31536000, immutable"


def _read() -> dict[str, tuple[bytes, str, str]]:
    files = {}
    for file in (resources.files("cdb_server.pages") / "static").iterdir():
        kind = _KINDS.get(f".{file.name.rpartition('.')[2]}")
        if kind is not None:
            data = file.read_bytes()
            files[file.name] = data, kind, hashlib.sha256(data).hexdigest()[:16]
    return files


_FILES = _read()


def address(name: str) -> str:
    """The address of a file below the site's root. It changes with the file, so that it may be kept for ever."""
    return f"static/{name}?v={_FILES[name][2]}"


def page() -> Page:
    """All of them."""

    async def answer(request: Request) -> Response:
        file = _FILES.get(request.path_params["name"])
        if file is None:
            return Response(f"there is no such file: there are {', '.join(sorted(_FILES))}\n", 404, SECURITY)
        data, kind, version = file
        kept = _FOR_EVER if request.query_params.get("v") == version else "no-cache"
        return Response(data, 200, {**SECURITY, "Cache-Control": kept}, media_type=kind)

    return Page(STATIC_PATH, "page_static", answer)
