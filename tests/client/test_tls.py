"""The client over TLS: which servers it believes, what it shows them, and what it says when that fails."""

from pathlib import Path

import pytest

import cdb
from tests import certificates
from tests.certificates import Certificates
from tests.client.cdb_process import shell
from tests.servers import Master


@pytest.fixture(autouse=True)
def believed(monkeypatch: pytest.MonkeyPatch, ours: Certificates) -> None:
    """The authority is believed, and no certificate is shown."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ours.ca)
    monkeypatch.delenv("CDB_CLIENT_CERT", raising=False)


def test_a_certificate_is_shown_by_setting_and_by_argument(
    closed: Master, ours: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CDB_CLIENT_CERT, or client_cert, which goes before it; for reading and for writing."""
    assert cdb.Calibration(closed.url, client_cert=ours.client).get_status().status == "OK"
    monkeypatch.setenv("CDB_CLIENT_CERT", ours.client)
    writer = cdb.CalibrationSuperMouse(closed.url, user=closed.user, token=closed.token)
    assert writer.add_run(901, "2016-03-01").run_number == 901
    assert writer.get_run(901).author == closed.user
    monkeypatch.setenv("CDB_CLIENT_CERT", "/missing")
    assert cdb.Calibration(closed.url, client_cert=ours.client).get_status().status == "OK"


def test_the_shell_shows_a_certificate(closed: Master, ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """CDB_CLIENT_CERT, or --client-cert; without, exit status 3 and a line that says what to do."""
    assert shell(closed, "devices", "--client-cert", ours.client).returncode == 0
    refused = shell(closed, "devices", "--timeout", "1")
    assert refused.returncode == 3
    assert b"CDB_CLIENT_CERT" in refused.stderr
    assert refused.stderr.count(b"\n") == 2
    monkeypatch.setenv("CDB_CLIENT_CERT", ours.client)
    assert shell(closed, "run", "add", "902", "--start", "2016-03-01").returncode == 0


def test_a_server_of_an_unknown_authority_is_not_believed(
    closed: Master, ours: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor one of another than REQUESTS_CA_BUNDLE names; and a bundle that is not there is said so."""
    for bundle in (None, certificates.make(tmp_path).ca):
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        if bundle is not None:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
        with pytest.raises(cdb.ServerUnreachable, match=r"certificate is not accepted: .*name.*REQUESTS_CA_BUNDLE"):
            cdb.Calibration(closed.url, client_cert=ours.client).get_status()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/missing.pem")
    with pytest.raises(cdb.ServerUnreachable, match="REQUESTS_CA_BUNDLE names is not there"):
        cdb.Calibration(closed.url, client_cert=ours.client).get_status()


def test_a_server_with_anothers_name_is_not_believed(closed: Master, ours: Certificates) -> None:
    """The certificate is for 127.0.0.1, not for localhost."""
    with pytest.raises(cdb.ServerUnreachable, match="not valid for 'localhost'"):
        cdb.Calibration(closed.url.replace("127.0.0.1", "localhost"), client_cert=ours.client).get_status()


def test_who_shows_no_certificate_reads_what_to_do(closed: Master, ours: Certificates, tmp_path: Path) -> None:
    """None, or a foreign one; with a small question and with a large upload, which is cut off while it is sent."""
    foreign = certificates.make(tmp_path).client
    for shown, said in ((None, "name yours in CDB_CLIENT_CERT"), (foreign, f"CDB_CLIENT_CERT, {foreign}")):
        writer = cdb.CalibrationSuperMouse(
            closed.url, user=closed.user, token=closed.token, client_cert=shown, timeout=1
        )
        with pytest.raises(cdb.ServerUnreachable, match=said):
            writer.get_status()
        with pytest.raises(cdb.ServerUnreachable, match=said):
            writer.add_calibration("TLS", "t0", "2016-03-01", bytes(2**23))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("missing", "cannot be read: No such file"),
        ("nonsense", "does not hold a certificate and its key"),
        ("certificate alone", "does not hold a certificate and its key"),
        ("encrypted", "its key is encrypted"),
    ],
)
def test_a_certificate_that_cannot_be_shown_is_named(
    content: str, said: str, closed: Master, ours: Certificates, tmp_path: Path
) -> None:
    """A typed error that names the file and the setting, and no question for a password."""
    file = tmp_path / "client.pem"
    contents = {
        "nonsense": b"nonsense\n",
        "certificate alone": Path(ours.ca).read_bytes(),
        "encrypted": ours.encrypted_key() + Path(ours.tls.cert).read_bytes(),
    }
    if content in contents:
        file.write_bytes(contents[content])
    with pytest.raises(cdb.ServerUnreachable, match=f"CDB_CLIENT_CERT {file}.* {said}"):
        cdb.Calibration(closed.url, client_cert=str(file)).get_status()


def test_the_wrong_scheme_is_guessed(closed: Master, shared_master: Master) -> None:
    """http:// where TLS is spoken, and https:// where it is not."""
    with pytest.raises(cdb.ServerUnreachable, match="https://"):
        cdb.Calibration(closed.url.replace("https", "http"), timeout=1).get_status()
    with pytest.raises(cdb.ServerUnreachable, match="does not speak TLS: is its address one with http://"):
        cdb.Calibration(shared_master.url.replace("http", "https")).get_status()


def test_a_bundle_that_holds_no_certificate_is_named(
    closed: Master, ours: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the server's doing."""
    (tmp_path / "notes.txt").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "notes.txt"))
    with pytest.raises(cdb.ServerUnreachable, match="REQUESTS_CA_BUNDLE names holds no certificate"):
        cdb.Calibration(closed.url, client_cert=ours.client).get_status()
