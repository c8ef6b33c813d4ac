"""From a template and values to a response: everything escaped, and a browser that obeys nobody but this server."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cdb_server.pages import plot, words

# "a strict Content-Security-Policy": nothing from elsewhere, nothing inline, in nobody's frame.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# What a page shows may have changed by the next look, and may be one person's alone.
PAGE_HEADERS = {**SECURITY, "Cache-Control": "no-cache, private"}


def environment() -> Environment:
    """The templates, and the words that they use. A name that is not given is an error, not an empty place."""
    made = Environment(
        loader=PackageLoader("cdb_server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "instant": words.instant,
        "second": words.second,
        "exact": words.exact,
        "age": words.age,
        "size": words.size,
        "count": words.count,
        "segment": words.segment,
        "signed": plot.signed,
        "percent": plot.percent,
    }
    made.filters.update(filters)
    return made
