"""Whether a request to change something was made from a page of this site, and from no other.

A browser says so in Sec-Fetch-Site; one that does not, or that asks without TLS, says in Origin whose page it was.
A request that says neither was made by no form in a browser.
"""

from urllib.parse import urlsplit

from starlette.requests import Request


def is_own(request: Request, public_url: str) -> bool:
    """Whether it is from this site, called by the name that the request calls it, or by its public one."""
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in ("same-origin", "none")
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc in (request.headers.get("host"), urlsplit(public_url).netloc)
