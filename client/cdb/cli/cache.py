"""`cdb cache`: what the cache holds; looked through, and emptied."""

import sys
from datetime import datetime, timezone

import click

from cdb._cache import Cache
from cdb.cli import shared


@click.group()
def cache() -> None:
    """Show, verify or empty the cache: payloads, and answers to questions with as_of.

    It is the folder that CDB_CACHE names, or one of yours. Whatever is read from it is checked first.
    """


@cache.command(short_help="Show where the cache is and how much it holds.")
@shared.cache_folder
@shared.as_json
def show(as_json: bool) -> None:
    """Show where the cache is and how much it holds."""
    kept = Cache()
    files = kept.store.stored()
    payloads = [file for file in files if kept.is_payload(file)]
    said = {
        "folder": str(kept.store.folder),
        "payloads": len(payloads),
        "payload_bytes": sum(file.size for file in payloads),
        "answers": len(files) - len(payloads),
        "bytes": sum(file.size for file in files),
        "most_bytes": kept.store.limit,
        "longest_unused": datetime.fromtimestamp(files[0].used, timezone.utc) if files else None,
        "put_aside_as_wrong": len(kept.store.quarantined()),
    }
    if as_json:
        shared.print_json(said)
    else:
        shared.print_rows(("cache", ""), [(name.replace("_", " "), value) for name, value in said.items()])


@cache.command(short_help="Read every file of the cache.")
@shared.cache_folder
def verify() -> None:
    """Read every file of the cache. Exit status 1 when one was wrong: it is put aside, and fetched anew when needed."""
    kept = Cache()
    files = kept.store.stored()
    wrong = 0
    with shared.progress("files") as bar:
        for file in bar.track(files, description="verify"):
            if not kept.check(file):
                wrong += 1
                shared.tell_above(bar, f"cdb: {file.path.name} was wrong")
    shared.out(f"{len(files) - wrong} files are right, {wrong} were not")
    sys.exit(1 if wrong else 0)


@cache.command(short_help="Remove everything from the cache.")
@shared.cache_folder
@click.option("--yes", is_flag=True, help="Do not ask.")
def empty(yes: bool) -> None:
    """Remove everything from the cache. Asks on a terminal."""
    kept = Cache()
    files = kept.store.stored()
    if not yes and sys.stdin.isatty():
        size = sum(file.size for file in files)
        if not shared.confirmed(f"remove {len(files)} files of {size:,} bytes from {kept.store.folder}?"):
            raise click.Abort
    kept.store.remove_all()
    shared.tell(f"{len(files)} files removed from {kept.store.folder}")
