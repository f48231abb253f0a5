"""Alerts by every way, out of the sandbox of the controller's unit, as its own user.

What accepts them are an HTTP server with TLS, aiosmtpd, Apprise with what it tells, and a sendmail that
hands on to an SMTP server. Certificates are of an authority of the test's own; passwords are credentials of
the controller's unit, in files that are root's alone.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.live.conftest import CHECKOUT, Box
from tests.live.storms import UNIT, is_up
from tests.live.test_alerts import accepted, queued
from tests.live.until import until

pytestmark = pytest.mark.live

KEPT = "/var/tmp"
HTTPS, STARTTLS, TLS, JSON, SMTP = 7811, 7812, 465, 7813, 7814
MODULES = "/srv/modules"
APPRISE = ("apprise", "requests", "urllib3", "idna", "certifi", "charset_normalizer", "requests_oauthlib")
APPRISE += ("oauthlib", "markdown", "yaml", "click", "tzdata")
SENDMAIL = f"""#!/usr/bin/python3
import email, smtplib, sys
assert sys.argv[1:] == ["-i", "-t"]
with smtplib.SMTP("127.0.0.1", {SMTP}) as server:
    server.send_message(email.message_from_file(sys.stdin))
"""
DROP_IN = """[Unit]
StartLimitIntervalSec=0
[Service]
LoadCredential=mail-password:/etc/secrets/mail
LoadCredential=hook-token:/etc/secrets/hook
"""
ALERTS = f"""
[alerts.hook]
url = "https://127.0.0.1:{HTTPS}/hook"
secret = "hook-token"
ca = "/etc/sysresp/ca.pem"
[alerts.system]
url = "https://127.0.0.1:{HTTPS}/system"
[alerts.starttls]
mailto = "ops@example.org"
smtp = "127.0.0.1:{STARTTLS}"
user = "me"
secret = "mail-password"
ca = "/etc/sysresp/ca.pem"
[alerts.tls]
mailto = "ops@example.org"
smtp = "127.0.0.1:{TLS}"
user = "me"
secret = "mail-password"
ca = "/etc/sysresp/ca.pem"
[alerts.sendmail]
mailto = "root@localhost"
[alerts.apprise]
apprise = ["/usr/local/bin/apprise", "--config", "/etc/sysresp/apprise.yml"]
[alerts.page]
exec = ["/bin/sh", "-c", "echo it says why; exit 3"]
[services.db]
command = ["/bin/sh", "-c", "exit 3"]
restart = {{ when = "no" }}
alerts = ["hook", "system", "starttls", "tls", "sendmail", "apprise"]
"""


def bring_modules(box: Box, *names: str) -> None:
    """Copy modules of this Python into the box; what of them is compiled they can do without."""
    for name in names:
        found = importlib.util.find_spec(name)
        assert found is not None, name
        (place,) = found.submodule_search_locations or ()
        skip = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(place, box.path(f"{MODULES}/{name}"), ignore=skip)


def serve(box: Box, name: str, *words: str) -> None:
    run = ["systemd-run", "--quiet", "--collect", f"--unit=test-{name}", f"--setenv=PYTHONPATH={MODULES}"]
    box.run([*run, "/usr/bin/python3", f"{CHECKOUT}/tests/live/bin/{words[0]}", *words[1:]], check=True)


def furnish(box: Box, authority: Authority) -> None:
    """Start what listens, and give the controller's unit its credentials."""
    box.write("/etc/secrets/mail", "s3cret\n", 0o600)
    box.write("/etc/secrets/hook", "t0ken\n", 0o600)
    box.write("/etc/sysresp/ca.pem", authority.certificate.read_text())
    pair = [box.write(f"/etc/secrets/{path.name}", path.read_text(), 0o600) for path in authority.server()]
    bring_modules(box, "aiosmtpd", "public", "attr", *APPRISE)
    serve(box, "https", "receiver", "http", str(HTTPS), f"{KEPT}/https", "0", *pair)
    serve(
        box, "starttls", "mailserver", str(STARTTLS), f"{KEPT}/starttls", "starttls", "me", "s3cret", *pair
    )
    serve(box, "tls", "mailserver", str(TLS), f"{KEPT}/tls", "tls", "me", "s3cret", *pair)
    serve(box, "json", "receiver", "http", str(JSON), f"{KEPT}/json")
    serve(box, "smtp", "receiver", "smtp", str(SMTP), f"{KEPT}/smtp")
    box.write("/usr/sbin/sendmail", SENDMAIL, 0o755)
    program = 'exec /usr/bin/python3 -c "from apprise.cli import main; main()" "$@"'
    box.write("/usr/local/bin/apprise", f"#!/bin/sh\nPYTHONPATH={MODULES} {program}\n", 0o755)
    box.write("/etc/sysresp/apprise.yml", f"urls:\n  - json://127.0.0.1:{JSON}/told\n")
    box.write(f"/etc/systemd/system/{UNIT}.d/test.conf", DROP_IN)


def messages(box: Box) -> dict[str, dict[str, Any]]:
    found = json.loads(box.sysresp("alerts", "--json", check=True).stdout)["messages"]
    return {one["alert"].partition("/")[2]: one for one in found}


def test_every_way_out_of_the_sandbox(arena: Box, tmp_path: Path) -> None:
    if missing := [name for name in ("aiosmtpd", "apprise") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {missing}")
    box, authority = arena, Authority(tmp_path)
    furnish(box, authority)
    text = f'project = "{box.project}"\n{ALERTS}'
    box.sysresp("apply", "--no-rollback", box.write("/etc/sysresp/shop.toml", text))
    box.sysresp("controller", "enable", "--create-user", check=True)
    until(lambda: is_up(box), "the controller is up")
    assert box.show(UNIT, "User") == "sysresp"
    try:
        until(lambda: queued(box) == 1 and len(messages(box)) == 6, "all but one have taken it")
    finally:
        found = messages(box)
        print({name: (one["state"], one["tries"], one["why"]) for name, one in found.items()})
    assert "its certificate is not trusted: unable to get local issuer" in found["system"]["why"]

    (hook,) = accepted(box, f"{KEPT}/https")
    assert (hook["path"], hook["authorization"]) == ("/hook", "Bearer t0ken")
    for file in ("starttls", "tls"):
        (mail,) = accepted(box, f"{KEPT}/{file}")
        assert (mail["user"], mail["is_encrypted"], mail["to"]) == ("me", True, ["ops@example.org"])
    (local,) = accepted(box, f"{KEPT}/smtp")
    assert any(line.startswith("Subject:") and "db is down for good" in line for line in local["lines"])
    (told,) = accepted(box, f"{KEPT}/json")
    assert told["body"]["title"] == hook["body"]["summary"]
    assert "sysresp incidents show 1" in told["body"]["message"]

    # A test message takes the same ways, with the same credentials, and fails of the same.
    for name in ("hook", "starttls"):
        assert box.sysresp("alerts", "test", name, check=True).stdout == f"{name} has taken it\n"
    assert accepted(box, f"{KEPT}/https")[-1]["authorization"] == "Bearer t0ken"
    assert [one["user"] for one in accepted(box, f"{KEPT}/starttls")] == ["me", "me"]
    for name, why in (("system", "not trusted"), ("page", "/bin/sh ended with 3: it says why")):
        done = box.sysresp("alerts", "test", name)
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr

    ask = "import ssl; print(ssl.get_default_verify_paths().openssl_capath)"
    place = box.run(["/usr/bin/python3", "-c", ask], check=True).stdout.strip()
    copy = f"mkdir -p {place} && cp /etc/sysresp/ca.pem {place}/{authority.hashed()}"
    box.run(["/bin/sh", "-c", copy], check=True)
    assert box.sysresp("alerts", "test", "system", check=True).stdout == "system has taken it\n"
    assert accepted(box, f"{KEPT}/https")[-1]["path"] == "/system"

    box.write("/usr/sbin/sendmail", "#!/bin/sh\necho I may not; exit 75\n", 0o755)
    said = box.sysresp("alerts", "test", "sendmail").stderr
    assert "/usr/sbin/sendmail ended with 75: I may not; name a server with smtp" in said
    serve(box, "local", "receiver", "smtp", "25", f"{KEPT}/local")
    taken = "sendmail has taken it\n"  # by the server beside it
    until(lambda: box.sysresp("alerts", "test", "sendmail").stdout == taken, "a server listens")
    assert len(accepted(box, f"{KEPT}/local")) == 1
    box.path("/etc/secrets/hook").unlink()
    assert "could not be started" in box.sysresp("alerts", "test", "hook").stderr
    assert "alerts-test" not in box.systemctl("list-units", "--all", "sysresp-*").stdout
