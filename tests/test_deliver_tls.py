"""The sender with TLS and a login: real servers on loopback, with certificates of an authority of our own.

What reads the system's certificates, and the server at port 465, is in tests/live/test_ways.py.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sysresp.units.alerting import Receiver
from tests.authority import Authority
from tests.test_deliver import BODY, RECEIVER, send

pytest.importorskip("aiosmtpd", reason="the real SMTP server of these tests")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificates", allow_module_level=True)

MAIL_SERVER = str(Path(__file__).with_name("live") / "bin" / "mailserver")
PORT = 17821


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def serving(file: Path, *words: str) -> Iterator[Path]:
    """Run a server until the end, and wait until it listens."""
    process = subprocess.Popen([sys.executable, *words])
    until = time.monotonic() + 20
    try:
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            assert process.poll() is None
            assert time.monotonic() < until
        yield file
    finally:
        process.kill()
        process.wait()


@contextmanager
def mail_server(how: str, tmp_path: Path, authority: Authority) -> Iterator[Path]:
    pair = [str(path) for path in authority.server()]
    file = tmp_path / "mail"
    with serving(file, MAIL_SERVER, str(PORT), str(file), how, "me", "s3cret", *pair):
        yield file


def kept(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_hook_is_told_if_its_certificate_is_trusted(authority: Authority, tmp_path: Path) -> None:
    file, ca = tmp_path / "hook", str(authority.certificate)
    receiver = Receiver("url", url=f"https://127.0.0.1:{PORT}/")
    pair = [str(path) for path in authority.server()]
    with serving(file, RECEIVER, "http", str(PORT), str(file), "0", *pair):
        assert send(receiver._replace(ca=ca)) == (0, "")
        assert [one["body"] for one in kept(file)] == [BODY]
        for stranger, why in ((receiver, "unable to get local issuer"), (receiver._replace(ca=pair[0]), "")):
            status, said = send(stranger)
            assert status == 75
            assert f"its certificate is not trusted: {why}" in said
        named = receiver._replace(url=f"https://localhost:{PORT}/", ca=ca)
        assert "Hostname mismatch" in send(named)[1]
        status, said = send(receiver._replace(ca="/nonexistent"))
        assert (status, said) == (
            75,
            "cannot read the certificates: No such file or directory: /nonexistent\n",
        )
    assert len(kept(file)) == 1


def test_a_login_goes_through_tls(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("guess")
    base = Receiver("mailto", to=("ops@example.org",), smtp=f"127.0.0.1:{PORT}", user="me")
    receiver = base._replace(secret="password", ca=str(authority.certificate))
    with mail_server("starttls", tmp_path, authority) as file:
        assert send(receiver, CREDENTIALS_DIRECTORY=str(tmp_path)) == (0, "")
        (one,) = kept(file)
        assert (one["user"], one["is_encrypted"], one["to"]) == ("me", True, ["ops@example.org"])
        status, said = send(receiver._replace(secret=str(tmp_path / "wrong")))
        assert (status, said) == (75, "535 5.7.8 Authentication credentials invalid\n")
        status, said = send(receiver._replace(secret=str(tmp_path / "password"), ca=""))
        assert status == 75
        assert "its certificate is not trusted: unable to get local issuer certificate" in said
    assert len(kept(file)) == 1


def test_loopback_needs_no_certificate(authority: Authority, tmp_path: Path) -> None:
    """Debian's Postfix offers TLS with a certificate that nobody has signed."""
    receiver = Receiver("mailto", to=("ops@example.org",), smtp=f"127.0.0.1:{PORT}")
    with mail_server("plain", tmp_path, authority) as file:
        assert send(receiver) == (0, "")
        assert send(receiver._replace(ca=str(authority.certificate))) == (0, "")
    assert [one["is_encrypted"] for one in kept(file)] == [False, True]


def test_who_asks_for_tls_gets_nothing_without(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "mail"
    receiver = Receiver("mailto", to=("ops@example.org",), smtp=f"127.0.0.1:{PORT}")
    with serving(file, RECEIVER, "smtp", str(PORT), str(file)):
        status, said = send(receiver._replace(ca=str(authority.certificate)))
    assert (status, said) == (75, "the server offers no TLS, and nothing secret is sent without\n")
    assert kept(file) == []
