"""docs/deployment.md on mirrors that follow no longer and on a lost master: its commands, on real servers."""

from pathlib import Path

import cdb
from cdb_server.database.transactions import Database
from cdb_server.repository.tokens import Tokens
from tests import mirrors, servers
from tests.test_docs_deployment import run, section, typed, wait_for


def test_a_diverged_mirror_is_compared_rebuilt_or_resumed(tmp_path: Path) -> None:
    """The guide's sections on a mirror, and on one that follows no longer, line by line."""
    text = section("A mirror follows no longer")
    [compare, *_] = typed(text)
    [move] = [line for line in typed(text) if line.startswith("mv ")]
    [resume] = [line for line in typed(text) if "--resume" in line]
    assert sorted(typed(text)) == sorted([compare, move, resume])
    status, again = typed(section("A mirror"))[1:]
    assert again == compare

    url, copy = f"sqlite:///{tmp_path}/cdb.sqlite", f"sqlite:///{tmp_path}/mirror.sqlite"
    other = tmp_path / "other"
    other.mkdir()
    with servers.master(url, tmp_path, "--workers", "1") as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        writer.add_calibration("TOF1", "t0", "2016-03-01", b"1")
        given = {"MASTER": master.url, "CDB_DATABASE": copy, "CDB_BIND": "127.0.0.1:0"}
        with mirrors.mirror(master.url, copy, tmp_path) as mirror:
            wait_for(mirror, 1)
            shown = run(status.replace("http://127.0.0.1:8080", mirror.url), tmp_path)
            assert (shown.returncode, "seconds behind" in shown.stdout) == (0, True)
            assert run(compare, tmp_path, **given).returncode == 0
        # Another history.
        with servers.master(f"sqlite:///{other}/cdb.sqlite", other, "--workers", "1") as foreign:
            cdb.CalibrationSuperMouse(foreign.url, user=foreign.user, token=foreign.token).add_run(1, "2016-03-01")
            with mirrors.mirror(foreign.url, copy, tmp_path) as mirror:
                servers.until(lambda: "stopped following" in cdb.Calibration(mirror.url).get_status().status, 30)
                assert cdb.Calibration(mirror.url).get_current_calibration("TOF1", "t0").data == b"1"
                assert run(compare, tmp_path, **{**given, "MASTER": foreign.url}).returncode == 1
        # Its master is back, and they do not part: it goes on.
        assert run(compare, tmp_path, **given).returncode == 0
        assert "timeout --preserve-status 20" in resume
        resumed = run(resume.replace(" 20 ", " 5 "), tmp_path, **given)
        assert (resumed.returncode, "mirror of" in resumed.stdout) == (0, True), resumed.stderr
        with mirrors.mirror(master.url, copy, tmp_path) as mirror:
            writer.add_calibration("TOF1", "t0", "2016-03-01", b"2")
            wait_for(mirror, 2)
            assert cdb.Calibration(mirror.url).get_status().status == "OK"
        # Begun anew.
        assert run(move, tmp_path).returncode == 0
        with mirrors.mirror(master.url, copy, tmp_path) as mirror:
            wait_for(mirror, 2)
        assert (tmp_path / "parted.sqlite").is_file()


def test_a_lost_master_is_rebuilt_from_a_mirror_and_the_others_follow(tmp_path: Path) -> None:
    """Line by line; a mirror that was not chosen goes on with the new master as if nothing had been."""
    status, backup, restore, token = typed(section("A master that lost its data"))
    url = f"sqlite:///{tmp_path}/cdb.sqlite"
    copies = [f"sqlite:///{tmp_path}/mirror{number}.sqlite" for number in range(2)]
    with servers.master(url, tmp_path, "--workers", "1") as master:
        writer = cdb.CalibrationSuperMouse(master.url, user=master.user, token=master.token)
        stored = writer.add_calibration("TOF1", "t0", "2016-03-01", b"1")
        port = master.url.rpartition(":")[2]
        for copy in copies:
            with mirrors.mirror(master.url, copy, tmp_path) as mirror:
                wait_for(mirror, 1)
                assert run(status.replace("http://127.0.0.1:8080", mirror.url), tmp_path).returncode == 0
    (tmp_path / "cdb.sqlite").unlink()
    assert run(backup, tmp_path, CDB_DATABASE=copies[0]).returncode == 0
    restored = run(restore, tmp_path, CDB_DATABASE=url)
    assert restored.returncode == 0, restored.stderr
    added = run(token, tmp_path, CDB_DATABASE=url)
    assert added.returncode == 0, added.stderr
    with Database.open(url) as database:
        fresh = Tokens(database).add("bob")
    with (
        servers.serving(url, tmp_path, fresh, "--workers", "1", "--bind", f"127.0.0.1:{port}") as master,
        mirrors.mirror(master.url, copies[1], tmp_path) as mirror,
    ):
        assert cdb.Calibration(master.url).get_status().role == "master"
        assert cdb.Calibration(master.url).get_calibration_for_id(stored.id).record == stored
        cdb.CalibrationSuperMouse(master.url, user="bob", token=fresh).add_run(1, "2016-03-01")
        wait_for(mirror, 2)
