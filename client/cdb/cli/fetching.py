"""Many small questions at once, with a bar; and payloads brought into the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from cdb._cache import Cache
from cdb._exceptions import CdbPermanentError
from cdb.calibration import Calibration
from cdb.cli import shared

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

AT_ONCE = 8


def all_of(
    unit: str, ask: Callable[[Asked], Answered], about: Sequence[Asked], weights: Sequence[int] | None = None
) -> list[Answered]:
    """The answers to a question about each, in order; the bar counts `unit`, as much of it for each as is given.

    Raises what one of them raises, when those under way have ended.
    """
    weight = weights or [1] * len(about)
    with ThreadPoolExecutor(AT_ONCE) as threads, shared.progress(unit) as bar:
        task = bar.add_task("", total=sum(weight))
        under_way = {threads.submit(ask, each): position for position, each in enumerate(about)}
        try:
            for done in as_completed(under_way):
                done.result()
                bar.advance(task, weight[under_way[done]])
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in under_way]


def payloads(client: Calibration, sizes: Mapping[str, int]) -> None:
    """Have payloads, named by their sha256 and each with its size in bytes, in the cache.

    Raises CdbPermanentError where the cache has no room for them, or cannot be written.
    """
    cache = Cache()
    if (needed := sum(sizes.values())) > cache.store.limit:
        raise CdbPermanentError(
            f"the payloads are {needed:,} bytes, and the cache {cache.store.folder} holds {cache.store.limit:,} at "
            "most: fetch fewer at a time"
        )

    all_of("bytes", client.get_payload, list(sizes), list(sizes.values()))
    for sha256 in sizes:
        if cache.payload(sha256) is None:
            raise not_kept(cache)


def not_kept(cache: Cache) -> CdbPermanentError:
    """The error of a cache that does not hold what was fetched into it."""
    return CdbPermanentError(
        f"the cache {cache.store.folder} does not keep what it is given: can it be written, and is there room?"
    )
