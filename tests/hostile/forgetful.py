"""`python -m tests.hostile.forgetful serve ...`: a server that answers each request as if it were the first.

It learns no request template and no head, and keeps no answer. What it answers is what any other must.
"""

from cdb_server.cli import main
from cdb_server.http.heads import KnownHeads
from cdb_server.http.ready import ReadyAnswers
from cdb_server.soap.templates import RequestTemplates


def forget() -> None:
    """Have nothing remembered in this process, and in those that it forks."""
    RequestTemplates.learn = lambda *_: None  # type: ignore[method-assign]  # on purpose
    KnownHeads.learn = lambda *_: None  # type: ignore[method-assign]  # on purpose
    ReadyAnswers.keep = ReadyAnswers.lend = lambda *_: None  # type: ignore[method-assign]  # on purpose


if __name__ == "__main__":
    forget()
    main()
