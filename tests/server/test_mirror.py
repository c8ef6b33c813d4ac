"""`cdb-server mirror`: a copy that follows, answers as its master, takes no writes, and stops where histories part.

Rule 7: "Each server knows complete_until, the latest as_of that it can answer". Rule 12: "The journal proves itself".
"""

import os
import pty
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

import cdb
from cdb_server import instants, maintenance
from cdb_server.database.transactions import Database
from cdb_server.errors import Unavailable
from cdb_server.mirror import Follower
from cdb_server.repository.mirror_writer import MirrorWriter
from cdb_server.repository.reader import Reader
from cdb_server.repository.tokens import Tokens
from cdb_server.repository.writer import Upload, Writer
from tests import mirrors, random_histories, servers, soap_proxy
from tests.mirrors import Mirror
from tests.servers import Master, until

LENGTH = 40


def writer(master: Master) -> cdb.CalibrationSuperMouse:
    return cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token, direct=True)


def head(url: str) -> tuple[int, str]:
    status = cdb.Calibration(url, direct=True).get_status()
    return status.serial, status.digest


def kept(database_url: str) -> tuple[int, str]:
    with Database.open(database_url) as database:
        status = Reader(database).status()
        return status.serial, status.digest


def clean(database_url: str) -> None:
    with Database.open(database_url) as database:
        assert not maintenance.verify(database).problems


def cdb_server(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cdb_server", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """A master on SQLite with a history of a day, that grows with the tests."""
    folder = tmp_path_factory.mktemp("master")
    url = f"sqlite:///{folder}/master.sqlite"
    Database.create(url)
    with Database.open(url) as database:
        token = Tokens(database).add(servers.USER)
    random_histories.write(url, LENGTH)
    with servers.serving(url, folder, token) as running:
        yield running


@pytest.fixture(scope="module")
def mirror(filled: Master, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """Its mirror, on SQLite too."""
    folder = tmp_path_factory.mktemp("mirror")
    with mirrors.mirror(filled.url, f"sqlite:///{folder}/mirror.sqlite", folder) as running:
        until(lambda: head(running.url) == head(filled.url))
        yield running


@pytest.mark.parametrize(("of", "on"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_mirror_answers_as_its_master(
    of: str, on: str, new_database_url: Callable[[str], str], tmp_path: Path
) -> None:
    """Every question, now and as of many instants, of a mirror and of a mirror of that; a killed one goes on."""
    urls = [new_database_url(backend) for backend in (of, on, "sqlite")]
    folders = [tmp_path / name for name in ("master", "first", "second")]
    for folder in folders:
        folder.mkdir()
    Database.create(urls[0])
    random_histories.write(urls[0], LENGTH)
    with servers.serving(urls[0], folders[0], "") as master, soap_proxy.soap_proxy(master.url) as leading:
        # What follows is written as if it were half a day ago: until then nothing may be promised.
        leading.change = replaced("get_status", rb"complete_until>\d{4}", rb"complete_until>2016")
        with mirrors.mirror(leading.url, urls[1], folders[1]) as first:
            until(lambda: head(first.url) == head(master.url))
            servers.kill(first.process)
        random_histories.write(urls[0], LENGTH, seed=2, ago=random_histories.DAY / 2)
        with (
            mirrors.mirror(master.url, urls[1], folders[1]) as first,
            mirrors.mirror(first.url, urls[2], folders[2]) as second,
        ):
            last = until(lambda: head(second.url) == head(master.url) and head(master.url))
            created = [entry.created for entry in cdb.Calibration(master.url).get_journal()]
            # Both are caught up, and say so: what is as of an hour ago they know to be complete.
            until(lambda: second.status().complete_until > instants.now() - timedelta(hours=1))
            asked = [None, created[0] - timedelta(microseconds=1), created[len(created) // 2], created[-1]]
            for as_of in asked:
                expected = list(random_histories.answers(cdb.Calibration(master.url), as_of, last[0]))
                assert list(random_histories.answers(first.client, as_of, last[0])) == expected
                assert list(random_histories.answers(second.client, as_of, last[0])) == expected
            said = second.status()
            assert (said.role, said.master, said.status, said.lag_entries) == ("mirror", first.url, "OK", 0)
            # It knows nothing that the one between does not.
            assert said.lag_seconds is not None
            assert said.complete_until <= cdb.Calibration(master.url).get_status().complete_until
    for url in urls:
        clean(url)
        assert kept(url) == last


def test_knowledge_grows_while_nothing_is_written(filled: Master, mirror: Mirror) -> None:
    """Rule 7: complete_until advances on an idle master's mirror, and a later as_of is not reached."""
    before = mirror.status()
    until(lambda: mirror.status().complete_until > before.complete_until + timedelta(seconds=1))
    assert mirror.status().serial == before.serial
    with pytest.raises(cdb.AsOfNotReached) as caught:
        mirror.client.list_devices(as_of=instants.now())
    assert caught.value.complete_until <= instants.now() - timedelta(seconds=10)


def test_every_answer_says_how_old_it_is(filled: Master, mirror: Mirror) -> None:
    """CDB-Serial and CDB-Age on plain answers, errors too, and on SOAP; on a master no CDB-Age."""
    serial = str(mirror.status().serial)
    sha256 = next(entry.sha256 for entry in mirror.client.get_journal() if entry.sha256)
    envelope = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><c:{} xmlns:c="urn:mice:cdb:2">{}'
        "</c:{}></s:Body></s:Envelope>"
    )
    asked = [
        (f"/cdb/v2/payload/{sha256}", None),
        ("/cdb/v2/payload/nonsense", None),
        ("/cdb/v2/calibration/NONE/t0", None),
        ("/cdb/v2/calibration", envelope.format("get_status", "", "get_status")),
        ("/cdb/v2/calibration", envelope.format("get_run", "<c:run_number>1</c:run_number>", "get_run")),
    ]
    for path, body in asked:
        for server, is_mirror in ((mirror.url, True), (filled.url, False)):
            request = urllib.request.Request(server + path, body.encode() if body else None)
            request.add_header("Content-Type", "text/xml; charset=utf-8")
            try:
                headers = urllib.request.urlopen(request, timeout=10).headers
            except urllib.error.HTTPError as error:
                headers = error.headers
                error.close()
            assert headers["CDB-Serial"] == serial
            assert (headers["CDB-Age"] is not None) == is_mirror
            if is_mirror:
                assert int(headers["CDB-Age"]) < 10


def test_on_a_mirror_there_is_nothing_to_write_with(filled: Master, mirror: Mirror) -> None:
    """The address answers 404 with the place to write at, its description too; the mirror's WSDL names no write."""
    for query, method, body in (("", "POST", b"x" * 3_000_000), ("?wsdl", "GET", None), ("", "PUT", b"")):
        request = urllib.request.Request(f"{mirror.url}/cdb/v2/calibrationSuperMouse{query}", body, method=method)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as refused:
            assert refused.status == 404
            assert refused.read().decode() == f"this is a mirror, and takes no writes: write to {filled.url}\n"
    with urllib.request.urlopen(f"{mirror.url}/cdb/v2/calibration?wsdl", timeout=10) as answered:
        wsdl = answered.read().decode()
    assert not re.search(r'operation name="(add|withdraw|preview)_', wsdl)


def test_a_mirror_is_not_served_as_a_master(mirror: Mirror, filled: Master, tmp_path: Path) -> None:
    """Nor is a master's database made a mirror."""
    served = cdb_server("serve", "--database", mirror.database)
    assert served.returncode == 1
    assert f"is the database of a mirror: serve it with 'cdb-server mirror --of {filled.url}'" in served.stderr
    mirrored = cdb_server("mirror", "--of", mirror.url, "--database", filled.database)
    assert mirrored.returncode == 1
    assert "has entries of its own" in mirrored.stderr


def test_what_serves_a_mirror_cannot_write(backend: str, database_url: str) -> None:
    """Its connections refuse, on both databases, whatever they are asked."""
    Database.create(database_url)
    with Database.open(database_url) as database:
        MirrorWriter(database).start_following("http://master")
    with Database.open(database_url, read_only=True) as database:
        assert Reader(database).status().role == "mirror"
        for way_in in (database.read, database.write, database.read):
            with pytest.raises(Unavailable), way_in() as connection:
                connection.exec_driver_sql("INSERT INTO token VALUES ('a', 'b', 1, NULL)")
    with Database.open(database_url) as database, database.read() as connection:
        assert connection.exec_driver_sql("SELECT * FROM token").all() == []


def test_a_write_goes_to_the_master(filled: Master, mirror: Mirror, tmp_path: Path) -> None:
    """`cdb add` at a mirror alone says where writing is possible; with the master in the list it writes there."""
    file = tmp_path / "payload"
    file.write_bytes(os.urandom(2_000_000))
    command = [sys.executable, "-m", "cdb.cli", "add", "TOF1", "t0", str(file), "--valid-from", "2016-03-05"]

    def added(addresses: str) -> "subprocess.CompletedProcess[str]":
        environment = {**filled.environment, "CDB_SERVER": addresses}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    for alone in (mirror.url, f"{mirror.url} {mirror.url}"):
        refused = added(alone)
        assert refused.returncode == 1
        assert f"this is a mirror, and takes no writes: write to {filled.url}" in refused.stderr
    before = head(filled.url)[0]
    done = added(f"{mirror.url} {filled.url}")
    assert done.returncode == 0, done.stderr
    assert head(filled.url)[0] == before + 1
    until(lambda: head(mirror.url) == head(filled.url))


def test_following_and_serving_do_not_take_each_other_down(filled: Master, mirror: Mirror) -> None:
    """Each killed without warning: the other goes on, and it is there again by itself."""
    follower, failures, ended = mirror.follower(), [], threading.Event()

    def ask() -> None:
        client = mirror.client
        while not ended.is_set():
            try:
                client.list_devices()
            except cdb.CdbError as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    os.kill(follower, signal.SIGKILL)
    writer(filled).add_run(1, "2016-03-01")
    until(lambda: head(mirror.url) == head(filled.url))
    again = mirror.follower()
    ended.set()
    asking.join()
    assert failures == []
    assert again != follower
    assert "the following process died (exit status -9), and is begun again" in mirror.log.read_text()
    workers = mirror.workers()
    os.kill(min(workers), signal.SIGKILL)
    writer(filled).add_run(2, "2016-03-01")
    until(lambda: head(mirror.url) == head(filled.url))
    assert mirror.follower() == again
    until(lambda: len(mirror.workers() - workers) == 1)


def test_an_upload_is_soon_on_the_mirror(filled: Master, mirror: Mirror) -> None:
    """Half of all uploads are readable there within two seconds."""
    client, seconds = writer(filled), []
    for number in range(5):
        id = client.add_calibration("SOON", "t0", "2016-03-01", f"{number}".encode()).id
        stored = time.monotonic()
        until(lambda: head(mirror.url) == head(filled.url))
        seconds.append(time.monotonic() - stored)
        assert mirror.client.get_calibration_for_id(id).data == f"{number}".encode()
    assert statistics.median(seconds) < 2


def test_what_a_killed_writer_left_is_undone_by_who_reads(tmp_path: Path) -> None:
    """On SQLite a mirror's answers do not wait for the following process to come back."""
    file = tmp_path / "cdb.sqlite"
    Database.create(f"sqlite:///{file}")
    with Database.open(f"sqlite:///{file}") as database:
        MirrorWriter(database).start_following("http://master")
    program = (
        "import os, sqlite3; c = sqlite3.connect(os.sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode=TRUNCATE'); c.execute('PRAGMA cache_size=1'); c.execute('BEGIN IMMEDIATE')\n"
        "for i in range(50): c.execute('INSERT INTO payload VALUES (?, ?)', (str(i), bytes(20000)))\n"
        "os.kill(os.getpid(), 9)"
    )
    with Database.open(f"sqlite:///{file}", read_only=True) as serving:
        assert Reader(serving).status().serial == 0
        killed = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert (tmp_path / "cdb.sqlite-journal").stat().st_size > 0
        assert Reader(serving).status().serial == 0
    clean(f"sqlite:///{file}")


def test_it_shows_how_far_it_is_on_a_terminal(filled: Master, tmp_path: Path) -> None:
    """A bar while it catches up, and no line of it in a log."""
    leader, terminal = pty.openpty()
    command = [sys.executable, "-m", "cdb_server", "mirror", "--of", filled.url, "--bind", "127.0.0.1:0"]
    command += ["--database", f"sqlite:///{tmp_path}/mirror.sqlite"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):
            while b"100%" not in shown:
                shown += os.read(leader, 65536)
        process.terminate()
    os.close(leader)
    assert b"catching up" in shown


def test_compare_tells_where_two_journals_diverge(filled: Master, mirror: Mirror, tmp_path: Path) -> None:
    """Equal or behind: exit status 0. Parted: 1, with the first entries that differ."""
    until(lambda: head(mirror.url) == head(filled.url))
    serial = head(filled.url)[0]
    equal = cdb_server("compare", filled.url, mirror.url)
    assert (equal.returncode, f"the first {serial} are the same" in equal.stdout) == (0, True)
    other = f"sqlite:///{tmp_path}/other.sqlite"
    Database.create(other)
    behind = cdb_server("compare", filled.url, "--database", other)
    assert behind.returncode == 0
    assert f"{other} is {serial} entries behind" in behind.stdout
    random_histories.write(other, 5, seed=5)
    parted = cdb_server("compare", filled.url, "--database", other)
    assert parted.returncode == 1
    assert "the first 0 are the same" in parted.stdout
    assert parted.stdout.count("entry 1 of ") == 2
    nobody = cdb_server("compare", "http://127.0.0.1:9")
    assert nobody.returncode == 1


def test_compare_says_who_does_not_give_its_entries(filled: Master) -> None:
    """Exit status 1 and a sentence, whatever a server answers."""
    with soap_proxy.soap_proxy(filled.url) as leading:
        leading.change = replaced("get_journal", rb"(?s)<tns:entry>.*</tns:entry>", b"")
        compared = cdb_server("compare", filled.url, leading.url)
    assert compared.returncode == 1
    assert f"cdb-server: {leading.url} does not give its entry" in compared.stderr


def test_a_mirror_whose_database_cannot_be_made_says_why(filled: Master, tmp_path: Path) -> None:
    """The cause stands in the message, not that there is no database."""
    url = f"sqlite:///{tmp_path}/absent/cdb.sqlite"
    begun = cdb_server("mirror", "--of", filled.url, "--database", url)
    assert begun.returncode == 1
    assert f"{tmp_path}/absent/cdb.sqlite cannot be made: No such file or directory" in begun.stderr


@pytest.fixture
def behind(filled: Master, tmp_path: Path) -> Iterator[tuple[str, soap_proxy.SoapProxy]]:
    """The database of a mirror that has all that the master has, and its way to the master."""
    url = f"sqlite:///{tmp_path}/behind.sqlite"
    Database.create(url)
    with soap_proxy.soap_proxy(filled.url) as leading, Database.open(url) as database:
        following = MirrorWriter(database)
        following.start_following(leading.url)
        Follower(leading.url, following).catch_up(threading.Event())
        assert head(filled.url) == (following.last_entry().serial, following.last_entry().digest)
        yield url, leading


def replaced(operation: str, old: bytes, new: bytes) -> soap_proxy.Change:
    """Every answer of an operation changed in all places."""

    def change(asked: str, answer: bytes) -> bytes:
        return re.sub(old, new, answer) if asked == operation else answer

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced("get_journal", rb">NEW<", rb">OLD<"), "does not have the digest of its content"),
        (replaced("get_journal", rb"run_number>1<", rb"run_number>2<"), "does not have the digest of its content"),
        (replaced("get_payload", rb"data>[^<]{8}", rb"data>AAAAAAAA"), "the payload of entry"),
        (replaced("get_payload", rb"data>[^<]*</", rb"data></"), "the payload of entry"),
        (replaced("get_journal", rb"(<\w+:serial>)(\d)", rb"\g<1>9\2"), "does not give entry"),
        (replaced("get_status", rb"(serial>)\d+", rb"\g<1>1"), "entries and this mirror"),
        (replaced("get_status", rb"digest>\w{8}", rb"digest>00000000"), "has another digest"),
    ],
    ids=["entry", "run", "payload", "no payload", "serial", "shorter", "another digest"],
)
def test_what_was_changed_on_its_way_is_not_applied(
    behind: tuple[str, soap_proxy.SoapProxy], filled: Master, change: soap_proxy.Change, reason: str
) -> None:
    """Asked twice, and then the mirror follows no longer, until a person says so; it keeps what it verified."""
    url, leading = behind
    before = kept(url)
    if "another digest" not in reason:
        client = writer(filled)
        number = head(filled.url)[0] + 100
        client.add_run(1, "2016-03-01", f"2016-03-02T00:00:{number % 60:02}.{number:06}")
        client.add_calibration("NEW", "t0", "2016-03-01", os.urandom(100))
    leading.change = change
    with Database.open(url) as database:
        following, ended = MirrorWriter(database), threading.Event()
        patience = threading.Timer(servers.PATIENCE, ended.set)
        patience.start()
        Follower(leading.url, following).follow(ended)
        patience.cancel()
        status = Reader(database).status()
        assert "stopped following at" in status.status
        assert reason in status.status
        # The run stands before the calibration: whatever was right is there.
        assert status.serial in (before[0], before[0] + 1)
        assert not maintenance.verify(database).problems
        leading.change = lambda operation, answer: answer
        assert reason in str(following.start_following(leading.url))
        assert "stopped following at" in Reader(database).status().status
        assert following.start_following(leading.url, resume=True) is None
        Follower(leading.url, following).catch_up(threading.Event())
        assert Reader(database).status().status == "OK"
    assert kept(url) == head(filled.url)


def test_an_as_of_answer_never_changes_whatever_the_status_said(tmp_path: Path) -> None:
    """Rule 7: no promise beyond ten seconds before now, none is lowered, and what would break one stops the mirror."""
    of, url = f"sqlite:///{tmp_path}/master.sqlite", f"sqlite:///{tmp_path}/mirror.sqlite"
    for made in (of, url):
        Database.create(made)
    random_histories.write(of, 10)
    with Database.open(url) as database:
        MirrorWriter(database).start_following("http://master")
    with (
        servers.serving(of, tmp_path, "") as master,
        soap_proxy.soap_proxy(master.url) as leading,
        Database.open(of) as accepting,
        Database.open(url) as database,
    ):
        following, reader = MirrorWriter(database), Reader(database)
        leading.change = replaced("get_status", rb"complete_until>\d{4}", rb"complete_until>9999")
        before = instants.now()
        Follower(leading.url, following).catch_up(threading.Event())
        promised = reader.status().complete_until
        assert before - timedelta(seconds=10) <= promised <= instants.now() - timedelta(seconds=10)
        answered = reader.devices(promised)
        leading.change = replaced("get_status", rb"complete_until>\d{4}", rb"complete_until>2016")
        Follower(leading.url, following).catch_up(threading.Event())
        assert reader.status().complete_until == promised
        leading.change = lambda operation, answer: answer
        # By a clock that was set back.
        upload = Upload.validated("LATE", "t0", random_histories.START, b"late", None, None, max_payload=10)
        Writer(accepting, clock=lambda: promised).add_calibration(upload, "alice")
        Follower(leading.url, following, poll_seconds=0.01).follow(threading.Event())
        assert "answers with as_of would change" in reader.status().status
        assert reader.devices(promised) == answered
        assert reader.status().complete_until == promised


def test_a_status_that_says_too_much_does_no_harm(behind: tuple[str, soap_proxy.SoapProxy], filled: Master) -> None:
    """More entries than there are: asked again after a while. Complete until next year: until now at most."""
    url, leading = behind
    before = kept(url)
    leading.change = replaced("get_status", rb"(serial>)(\d+)", rb"\g<1>9\2")
    with Database.open(url) as database:
        follower = Follower(leading.url, MirrorWriter(database))
        follower.catch_up(threading.Event())
        leading.change = replaced("get_status", rb"complete_until>20", rb"complete_until>21")
        follower.catch_up(threading.Event())
        assert Reader(database).status().complete_until <= instants.now()
    assert kept(url) == before


def test_a_master_with_another_history_is_not_followed(tmp_path: Path) -> None:
    """Restored from an old backup, grown beyond the mirror, or another server: it serves what it has, and says so."""
    urls = {name: f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("master", "old", "mirror")}
    Database.create(urls["master"])
    random_histories.write(urls["master"], 30)
    backup = tmp_path / "backup"
    maintenance.back_up(urls["master"], backup)
    random_histories.write(urls["master"], 20, seed=2, ago=random_histories.DAY / 2)
    maintenance.restore(urls["old"], backup)
    with (
        servers.serving(urls["master"], tmp_path, "") as master,
        servers.serving(urls["old"], tmp_path, "") as old,
        soap_proxy.soap_proxy(master.url) as leading,
    ):
        with mirrors.mirror(leading.url, urls["mirror"], tmp_path) as mirror:
            before = until(lambda: head(mirror.url) == head(master.url) and head(master.url))
            leading.to = old.url
            said = until(lambda: mirror.status().status != "OK" and mirror.status())
            assert "it was restored from a backup, or is another server" in said.status
            assert head(mirror.url) == before
            assert f"this mirror follows {leading.url} no longer, and serves what it has" in mirror.log.read_text()
            first = list(random_histories.answers(cdb.Calibration(master.url), None, before[0]))
            assert list(random_histories.answers(mirror.client, None, before[0])) == first
        # Nor is it when it is started again, until somebody says so.
        with mirrors.mirror(leading.url, urls["mirror"], tmp_path) as mirror:
            assert "does not follow: it stopped following at" in mirror.log.read_text()
            assert "--resume" in mirror.log.read_text()
            assert head(mirror.url) == before
            assert "it was restored from a backup, or is another server" in mirror.status().status
        # It goes on, and is not what it was any more.
        random_histories.write(urls["old"], 60, seed=3, ago=random_histories.DAY / 2)
        assert head(old.url)[0] > before[0]
        with mirrors.mirror(leading.url, urls["mirror"], tmp_path, "--resume") as mirror:
            said = until(lambda: mirror.status().status != "OK" and mirror.status())
            assert f"its entry {before[0]} has another digest" in said.status
            assert head(mirror.url) == before
            parted = cdb_server("compare", master.url, old.url)
            assert parted.returncode == 1
            [common] = re.findall(r"the first (\d+) are the same", parted.stdout)
            assert 30 <= int(common) < before[0]


def test_a_lost_master_is_rebuilt_from_a_mirror(tmp_path: Path) -> None:
    """backup on the mirror, restore on the master, a token, serve: it takes writes, and the mirror goes on with it."""
    old, new, copy = (f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("old", "new", "copy"))
    Database.create(old)
    random_histories.write(old, 30)
    with (
        servers.serving(old, tmp_path, "") as lost,
        soap_proxy.soap_proxy(lost.url) as leading,
        mirrors.mirror(leading.url, copy, tmp_path) as mirror,
    ):
        before = until(lambda: head(mirror.url) == head(lost.url) and head(lost.url))
        servers.kill(lost.process)
        assert cdb_server("backup", str(tmp_path / "backup"), "--database", copy).returncode == 0
        restored = cdb_server("restore", str(tmp_path / "backup"), "--database", new)
        assert restored.returncode == 0, restored.stderr
        token = cdb_server("token", "add", servers.USER, "--database", new).stdout.strip().splitlines()[-1]
        with servers.serving(new, tmp_path, token) as master:
            leading.to = master.url
            assert head(master.url) == before
            status = cdb.Calibration(master.url).get_status()
            assert status.role == "master"
            assert status.restored is not None
            assert writer(master).add_calibration("TOF1", "t0", "2016-03-01", b"again").id == before[0] + 1
            until(lambda: head(mirror.url) == head(master.url), 60)
            assert mirror.status().status == "OK"
    for url in (new, copy):
        clean(url)
