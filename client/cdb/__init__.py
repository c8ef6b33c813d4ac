"""The calibration database of the MICE experiment.

A calibration is a flat file that a detector expert stored for a *device* (TOF1), a *calibration type* (t0) and the
instant from which it applies (*valid from*). This package finds the file that applies, and gets exactly its bytes.

Reading
-------
    import cdb

    c = cdb.Calibration("http://localhost:8080")       # or set CDB_SERVER
    text = c.get_calibration_for_run("TOF1", "t0", 7662)

The answer is the file's content, a `str` with attributes that tell its origin:

    text.id, text.valid_from, text.valid_until, text.sha256, text.author
    text.data                                          # the exact bytes

The other queries:

    c.get_calibration_for_date("TOF1", "t0", "2016-03-01 08:00:00")
    c.get_current_calibration("TOF1", "t0")
    c.get_calibration_for_id(12)
    c.get_ids("2016-03-01", "2016-04-01")              # {12: {"validFrom": …, "created": …, …}, …}
    c.get_calibrations_for_run(7662)                   # everything that applies to the run, without content
    c.get_history("TOF1", "t0")                        # everything ever stored
    c.list_devices()
    c.get_run(7662)
    c.get_runs("2016-03-01", "2016-03-02")             # the runs that start in the period
    c.get_status()                                     # the server's role, version and journal position
    c.get_journal(after_serial=0, limit=100)           # who stored, withdrew or registered what, when and why

Times are UTC: aware datetimes, naive ones taken as UTC, or text such as 2016-03-01 or "2016-03-01 08:00:00.123456".
Upper and lower case do not matter in device names and calibration types.

The same answer for ever
------------------------
With `as_of`, a query is answered from the database as it stood at that instant, and its answer never changes:

    c.get_calibration_for_run("TOF1", "t0", 7662, as_of="2017-01-01")

`as_of="now"` is the latest as_of that the server can answer, some seconds ago. `CDB_AS_OF` sets it for a whole job.

A cache stores payloads, and answers to queries with as_of; each file is verified when it is read. `CDB_CACHE` names its
folder. With `CDB_OFFLINE=1` no server is asked; the command `cdb prefetch` fills the cache beforehand.

A lock file records the queries of a job and their answers, and replays them, whatever was stored since:

    with cdb.recording("run7662.lock"):                # or CDB_LOCK=run7662.lock for a whole job
        text = c.get_calibration_for_run("TOF1", "t0", 7662)
    with cdb.replaying("run7662.lock"):                # without any network
        assert c.get_calibration_for_run("TOF1", "t0", 7662) == text

Writing
-------
    w = cdb.CalibrationSuperMouse("http://localhost:8080", user="alice", token="…")    # or CDB_USER and CDB_TOKEN
    w.add_calibration("TOF1", "t0", "2016-10-01", data, comment="after the March survey")   # data: bytes or str
    w.add_run(7662, "2016-02-29 20:47:00.218291", "2016-02-29 22:24:30.786753")
    w.withdraw_calibration(12, "measured with the wrong trigger")

See what a calibration would change before you store it; this writes nothing:

    p = w.preview_calibration("TOF1", "t0", "2016-10-01", data)
    p.takes_over_from, p.valid_until, p.run_count, p.run_range, p.device_is_new, p.lies_in_future

Nothing is ever changed or deleted: correct a mistake by storing again or by withdrawing. Every write may be repeated
safely: what is stored already is not written again.

Several servers, bad connections
--------------------------------
    c = cdb.Calibration(["http://near:8080", "http://cdb.example:8080"], timeout=60)

The first server that answers is used. Temporary failures are retried for `timeout` seconds, 30 by default: no
connection, an answer cut off or damaged, a server that cannot answer now. Writes are retried like reads, which is safe.
A server that failed is skipped for half a minute. The final error names every server and what it said; the logger `cdb`
reports each retry. With `direct=True` each server is asked once, without cache and lock file: for programs that have
their own retries and cache.

A mirror may be some seconds behind. With `min_serial`, answers of servers that hold less of the journal are rejected:

    c = cdb.Calibration("http://near:8080 http://cdb.example:8080", min_serial=w.min_serial)

Each write raises the `min_serial` of its client, so that its later reads without as_of include the write.

A token is sent unencrypted only where all servers are named with http://. Where one is named with https://, writes go
only to servers with https:// and to those on this machine. No message shows a token, even where a server repeats it.

Over TLS
--------
Where a private authority signed the server's certificate, set `REQUESTS_CA_BUNDLE` to a PEM file with the certificate
of that authority. Where a server asks for a certificate of yours, set `CDB_CLIENT_CERT` to a PEM file with it and its
key; or give it:

    c = cdb.Calibration("https://cdb.example.org", client_cert="/home/alice/alice.pem")

Code for the earlier CDB
------------------------
Code for the earlier CDB's client still runs: its orders of arguments, such as
`get_calibration_for_run("TOF1", 7662, "t0")`, its names and its addresses are accepted. `cdb.Cabling` and
`cdb.CablingSuperMouse` read and write the calibration type `cabling`. docs/migration.md tells the differences.

Errors
------
All are `cdb.CdbError`: a `cdb.CdbPermanentError` where a retry will not help, a `cdb.CdbTemporaryError` where it may.

    permanent   CalibrationNotFound, RunNotFound, PayloadNotFound (all LookupError), InvalidArgument (ValueError),
                Integrity, TooLarge, MalformedRequest, NotAuthorised
    temporary   AsOfNotReached, Unavailable, ServerUnreachable
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdb._exceptions import (
        AsOfNotReached,
        CalibrationNotFound,
        CdbError,
        CdbPermanentError,
        CdbTemporaryError,
        Integrity,
        InvalidArgument,
        MalformedRequest,
        NotAuthorised,
        PayloadNotFound,
        RunNotFound,
        ServerUnreachable,
        TooLarge,
        Unavailable,
    )
    from cdb._resolver.job import recording, replaying
    from cdb.cabling import Cabling, CablingSuperMouse
    from cdb.calibration import Calibration
    from cdb.records import CalibrationRecord, CalibrationText, Device, JournalEntry, Preview, Run, RunRange, Status
    from cdb.supermouse import CalibrationSuperMouse

__all__ = [
    "AsOfNotReached",
    "Cabling",
    "CablingSuperMouse",
    "Calibration",
    "CalibrationNotFound",
    "CalibrationRecord",
    "CalibrationSuperMouse",
    "CalibrationText",
    "CdbError",
    "CdbPermanentError",
    "CdbTemporaryError",
    "Device",
    "Integrity",
    "InvalidArgument",
    "JournalEntry",
    "MalformedRequest",
    "NotAuthorised",
    "PayloadNotFound",
    "Preview",
    "Run",
    "RunNotFound",
    "RunRange",
    "ServerUnreachable",
    "Status",
    "TooLarge",
    "Unavailable",
    "recording",
    "replaying",
]

_HOMES = ("_exceptions", "_resolver.job", "records", "calibration", "supermouse", "cabling")


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import cdb` is fast."""
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("mice-cdb")
        return globals()[name]
    if name in __all__:
        from importlib import import_module

        for home in _HOMES:
            found = getattr(import_module(f"cdb.{home}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    if name[:1].isupper():
        from cdb._legacy import MISSING_CLASSES, missing_class

        if name.removesuffix("SuperMouse") in MISSING_CLASSES:
            globals()[name] = missing_class(name)
            return globals()[name]
    raise AttributeError(f"module 'cdb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
