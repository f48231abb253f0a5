"""Deliver one message: the child process of the controller's post.

A program of its own, with the standard library alone (`python3 -I -S send.py`): it reads who and what from
standard input, as JSON, tries once, and its exit status is the verdict: 0 accepted, 65 refused for what it
says, 75 to be tried again; the last line of its output says why. It alone reads secrets, from files, and
never prints them. Rule: no import of sysresp, and none of a library that only another way needs.
"""

# ruff: noqa: PLC0415 - each way imports its own library
from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

ACCEPTED, REFUSED, LATER = 0, 65, 75
SENDMAIL = ("/usr/sbin/sendmail", "/usr/lib/sendmail")
_FIELD = re.compile(r"\{([a-z_]+)\}")
_AGAIN = frozenset({408, 425, 429})
_HERE = frozenset({"127.0.0.1", "::1", "localhost"})
_TAIL = 1000  # bytes of what a program says
_LOCAL = ("127.0.0.1", 25)
_CONFINED = "; name a server with smtp: no set-user-ID program works in this sandbox"


def end(status: int, why: str) -> NoReturn:
    """Say why, and end with this verdict."""
    print(why, file=sys.stderr)
    raise SystemExit(status)


def filled(text: str, message: Mapping[str, Any]) -> str:
    """Return the text with {fields} of the message in it; what is no field stays."""
    return _FIELD.sub(lambda found: str(message[found[1]]) if found[1] in message else found[0], text)


def filled_all(value: Any, message: Mapping[str, Any]) -> Any:
    """Return any value of JSON with its texts filled."""
    if isinstance(value, str):
        return filled(value, message)
    if isinstance(value, list):
        return [filled_all(item, message) for item in value]
    if isinstance(value, dict):
        return {name: filled_all(item, message) for name, item in value.items()}
    return value


def secret_of(receiver: Mapping[str, Any]) -> str:
    """Return the secret, "" if there is none; a file that cannot be read may be there later."""
    where = receiver.get("secret", "")
    if not where:
        return ""
    if not where.startswith("/"):
        directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
        if not directory:
            end(LATER, f"the controller's unit has no credentials: {where} (LoadCredential=)")
        where = f"{directory}/{where}"
    try:
        with open(where, encoding="utf-8") as file:  # noqa: PTH123 - one import less
            return file.read().strip("\r\n")
    except (OSError, ValueError) as error:
        end(LATER, f"cannot read the secret: {getattr(error, 'strerror', None) or error}: {where}")


def trusted(receiver: Mapping[str, Any]) -> Any:
    """Return the SSLContext that trusts the certificates of `ca`, else those of the system."""
    import ssl

    file = receiver.get("ca") or None
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        end(LATER, f"cannot read the certificates: {error.strerror or error}: {file}")


def error_words(error: Exception) -> str:
    """Return why there was no talking to a server."""
    if verdict := getattr(error, "verify_message", ""):  # ssl.SSLCertVerificationError
        return f"its certificate is not trusted: {verdict} (`ca` names a file of those that are)"
    return f"{type(error).__name__}: {error}"


def post(receiver: Mapping[str, Any], message: Mapping[str, Any], timeout: float) -> None:
    """Post it as JSON."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import quote, urlsplit

    secret = secret_of(receiver)
    url = receiver["url"]
    has_place = "{secret}" in url
    plain = {name: quote(str(value), safe="") for name, value in message.items()}
    url = filled(url, {**plain, "secret": secret if has_place else ""})
    parts = urlsplit(url)
    body = filled_all(json.loads(receiver["body"]), message) if receiver.get("body") else message
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": message["key"],
        "User-Agent": "sysresp",
        "Connection": "close",
    }
    if secret and not has_place:
        headers["Authorization"] = f"Bearer {secret}"
    where = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    status = 0
    try:
        place = (parts.hostname or "", parts.port)
        if parts.scheme == "https":
            context = trusted(receiver)
            connection: HTTPConnection = HTTPSConnection(*place, timeout=timeout, context=context)
        else:
            connection = HTTPConnection(*place, timeout=timeout)
        connection.request("POST", where, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        answer.read(65536)
        status = answer.status
    except (OSError, HTTPException, ValueError) as error:
        end(LATER, error_words(error).replace(secret or "\0", "***"))
    if 200 <= status < 300:
        return
    end(LATER if status >= 500 or status in _AGAIN else REFUSED, f"it answered with status {status}")


def mail_of(receiver: Mapping[str, Any], message: Mapping[str, Any]) -> Any:
    """Return the mail; messages of one incident make a thread."""
    from email.message import EmailMessage
    from email.utils import formatdate

    mail = EmailMessage()
    host = str(message.get("host") or "localhost")
    subject = f"[{host}] {message['summary']}"
    mail["Subject"] = " ".join(subject.split())[:500]
    mail["From"] = receiver.get("sender") or f"sysresp@{host}"
    mail["To"] = ", ".join(receiver["to"])
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = f"<{message['key']}@sysresp.invalid>"
    if message["kind"] not in ("opened", "test"):
        first = message["key"].rpartition(f"-{message['kind']}")[0]
        mail["In-Reply-To"] = mail["References"] = f"<{first}-opened@sysresp.invalid>"
    mail["X-Sysresp-Key"] = message["key"]
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(str(message["text"]) + "\n")
    return mail


def send_mail(receiver: Mapping[str, Any], message: Mapping[str, Any], timeout: float) -> None:
    """Mail it, by a server or by sendmail(8).

    A sendmail that needs more rights than ours, as those of Postfix and Exim do, has none of them in the
    sandbox; but their server takes the same mail on loopback.
    """
    mail = mail_of(receiver, message)
    place = receiver.get("smtp", "")
    if not place and is_confined() and listens(_LOCAL):
        place = f"{_LOCAL[0]}:{_LOCAL[1]}"
    if not place:
        program = next((path for path in SENDMAIL if os.access(path, os.X_OK)), "")
        if not program:
            end(LATER, "there is no sendmail here: name a server with smtp")
        run([program, "-i", "-t"], mail.as_bytes(), timeout, _CONFINED if is_confined() else "")
        return
    import smtplib

    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    user, secret = receiver.get("user", ""), secret_of(receiver)
    try:
        if int(port) == 465:
            context = trusted(receiver)
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(host, int(port), timeout=timeout)
        with server:
            server.ehlo()
            if int(port) != 465 and wants_tls(receiver, host, has_login=server.has_extn("auth")):
                if server.has_extn("starttls"):
                    server.starttls(context=trusted(receiver))
                    server.ehlo()
                elif user or receiver.get("ca"):
                    end(LATER, "the server offers no TLS, and nothing secret is sent without")
            if user:
                server.login(user, secret)
            server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        words = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else ""
        is_final = 500 <= error.smtp_code < 600 and not isinstance(error, smtplib.SMTPAuthenticationError)
        end(REFUSED if is_final else LATER, f"{error.smtp_code} {words}")
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        end(REFUSED if all(code >= 500 for code in codes) else LATER, f"no recipient is accepted: {codes}")
    except (OSError, smtplib.SMTPException) as error:
        end(LATER, error_words(error))


def wants_tls(receiver: Mapping[str, Any], host: str, *, has_login: bool) -> bool:
    """Say whether to begin TLS: on loopback nobody listens, and certificates are often in no name at all."""
    is_enough = host in _HERE and (has_login or not receiver.get("user"))
    return bool(receiver.get("ca")) or not is_enough


def listens(place: tuple[str, int]) -> bool:
    """Say whether there is a server."""
    import socket

    try:
        socket.create_connection(place, timeout=1).close()
    except OSError:
        return False
    return True


def is_confined() -> bool:
    """Say whether programs that we run get no rights by their set-user-ID bit."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return "NoNewPrivs:\t1\n" in file.read()
    except OSError:
        return False


def run(argv: list[str], given: bytes, timeout: float, hint: str = "") -> None:
    """Run a program with this on its standard input; if it fails, its last line is the reason.

    Its end is waited for, and not that of its output, which what it leaves behind may hold.
    """
    import select
    import subprocess
    from contextlib import suppress
    from time import monotonic

    until, said = monotonic() + timeout, b""
    stdin = os.memfd_create("given")
    while given:
        given = given[os.write(stdin, given) :]
    os.lseek(stdin, 0, os.SEEK_SET)
    try:
        child = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except (OSError, ValueError) as error:
        end(LATER, f"cannot run {argv[0]}: {getattr(error, 'strerror', None) or error}")
    assert child.stdout is not None
    poll, out, ended = select.poll(), child.stdout.fileno(), os.pidfd_open(child.pid)
    os.set_blocking(out, False)
    poll.register(out, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while child.poll() is None and (left := until - monotonic()) > 0:
        if out in {found for found, _ in poll.poll(left * 1000)}:
            chunk = os.read(out, 65536)
            said = (said + chunk)[-_TAIL:]
            if not chunk:
                poll.unregister(out)
    with suppress(BlockingIOError):  # something that it left behind may say more
        said = (said + os.read(out, 65536))[-_TAIL:]
    if child.returncode is None:
        child.kill()
        child.wait()
        end(LATER, f"{argv[0]} was not done within {timeout:g}s{hint}")
    if child.returncode:
        words = said.decode(errors="replace").strip().rpartition("\n")[2]
        end(LATER, f"{argv[0]} ended with {child.returncode}{': ' if words else ''}{words}{hint}")


def tell(given: Mapping[str, Any]) -> None:
    """Deliver what was read."""
    receiver, message, timeout = given["receiver"], given["message"], float(given["timeout_sec"])
    match receiver["by"]:
        case "url":
            post(receiver, message, timeout)
        case "mailto":
            send_mail(receiver, message, timeout)
        case "apprise":
            argv = [*(filled(word, message) for word in receiver["argv"]), f"--title={message['summary']}"]
            run(argv, str(message["text"]).encode(errors="replace"), timeout)
        case "exec":
            argv = [filled(word, message) for word in receiver["argv"]]
            run(argv, json.dumps(message).encode(), timeout)
        case other:
            end(LATER, f"cannot tell anybody by {other!r}: restart the controller")


def main() -> None:
    """Read, deliver, end."""
    tell(json.load(sys.stdin))


if __name__ == "__main__":
    main()
