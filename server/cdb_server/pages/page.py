"""One page: where it is, what the metrics call it, and what answers it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response


@dataclass(frozen=True, slots=True)
class Page:
    """`path` as starlette's routes spell it; `name` is one of a fixed number, for the metrics."""

    path: str
    name: str
    answer: Callable[[Request], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET",)
