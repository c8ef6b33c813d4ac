"""`python -m tests.hostile.uncached_server serve ...`: a server that answers each request as if it were the first.

It learns no request template and no head, and keeps no answer. What it answers is what any other must.
"""

from cdb_server.cli import main
from cdb_server.http.request_templates import RequestHeadCache, RequestTemplateCache
from cdb_server.http.response_cache import ResponseCache


def forget() -> None:
    """Have nothing remembered in this process, and in those that it forks."""
    RequestTemplateCache.learn = lambda *_: None  # type: ignore[method-assign]  # on purpose
    RequestHeadCache.learn = lambda *_: None  # type: ignore[method-assign]  # on purpose
    ResponseCache.put = ResponseCache.put_weak = lambda *_: None  # type: ignore[method-assign]  # on purpose


if __name__ == "__main__":
    forget()
    main()
