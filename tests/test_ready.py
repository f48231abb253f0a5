"""The readiness prober, run as units run it: a program of its own under `python3 -I -S`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sysresp import ready

PROGRAM = str(Path(ready.__file__))


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", PROGRAM, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )


def run(*arguments: str, timeout: float = 0.3, **environment: str) -> tuple[int, str]:
    process = start("--timeout", str(timeout), "--interval", "0.02", *arguments, **environment)
    _, said = process.communicate(timeout=30)
    assert said.count("\n") == (process.returncode != 0)  # one line, or nothing
    return process.returncode, said.strip()


@pytest.fixture
def port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
    return number


Serve = Callable[[bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that gives every client this answer; b"" closes at once, b"-" never answers."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []
    kept: list[socket.socket] = []

    def answer(listener: socket.socket, content: bytes) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            kept.append(client)
            if content == b"-":
                continue
            if content:
                client.recv(65536)
                client.sendall(content)
            client.close()

    def begin(content: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        thread = threading.Thread(target=answer, args=(listener, content), daemon=True)
        thread.start()
        threads.append(thread)
        number: int = listener.getsockname()[1]
        return number

    yield begin
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()
    for client in kept:
        client.close()


def test_tcp(serve: Serve) -> None:
    number = serve(b"")
    assert run("tcp", f"127.0.0.1:{number}") == (0, "")
    assert run("tcp", f"localhost:{number}") == (0, "")
    assert run("tcp", str(number)) == (0, "")


def test_tcp_refused(port: int) -> None:
    wanted = f"not ready after 0.3 s: connect to 127.0.0.1:{port}: connection refused"
    assert run("tcp", f"127.0.0.1:{port}") == (1, wanted)


def test_tcp_waits_until_somebody_listens(port: int) -> None:
    process = start("--timeout", "20", "tcp", f"127.0.0.1:{port}")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    with socket.create_server(("127.0.0.1", port)):
        assert process.wait(20) == 0
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_unix(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = str(tmp_path / "s")
    assert run("unix", path) == (1, f"not ready after 0.3 s: connect to {path}: no such file or directory")
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(path)
        if kind != socket.SOCK_DGRAM:
            listener.listen()
        assert run("unix", path) == (0, "")
    assert run("unix", path)[1].endswith("connection refused")


def test_unix_abstract() -> None:
    name = f"sysresp-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        assert run("unix", "@" + name) == (0, "")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nfine", ""),
        (b"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", ""),
        (b"HTTP/1.1 503 Not yet\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "not an HTTP answer"),
        (b"", "the connection was closed without an answer"),
        (b"-", "no answer"),
    ],
)
def test_http(serve: Serve, answer: bytes, expected: str) -> None:
    url = f"http://127.0.0.1:{serve(answer)}/healthz?a=b#c"
    status, said = run("http", url)
    assert status == bool(expected)
    if answer and expected:
        assert said == f"not ready after 0.3 s: GET {url}: {expected}"


def test_http_ends_in_time_when_nobody_answers(serve: Serve) -> None:
    begun = time.monotonic()
    assert run("http", f"http://127.0.0.1:{serve(b'-')}/", timeout=0.5)[0] == 1
    assert time.monotonic() - begun < 5


def test_a_host_that_nobody_has() -> None:
    for host in ("nobody.invalid", "a" * 70 + "\u00e9"):
        status, said = run("tcp", f"{host}:80")
        assert (status, f"look up {host}: " in said) == (1, True)


@pytest.mark.parametrize("url", ["https://x/", "http://", "x", "http://a:b/"])
def test_http_url_that_is_none(url: str) -> None:
    begun = time.monotonic()
    status, said = run("http", url, timeout=30)
    assert (status, "is no" in said) == (1, True)
    assert time.monotonic() - begun < 10


def test_file(tmp_path: Path) -> None:
    assert run("file", str(tmp_path)) == (0, "")
    status, said = run("file", f"{tmp_path}/none")
    assert (status, said) == (1, f"not ready after 0.3 s: {tmp_path}/none: no such file or directory")


def test_exec(tmp_path: Path) -> None:
    assert run("exec", "--", "true") == (0, "")
    status, said = run("exec", "--", "false")
    assert (status, said) == (1, "not ready after 0.3 s: false ended with status 1")
    assert run("exec", "--", "/none") == (1, "cannot run /none: no such file or directory")
    tries = f"echo >>{tmp_path}/n; test $(wc -l <{tmp_path}/n) -ge 3"
    assert run("exec", "--", "sh", "-c", tries, timeout=20) == (0, "")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_exec_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"sleep 100 & echo $! >{note}.new; mv {note}.new {note}; wait"
    status, said = run("exec", "--", "sh", "-c", script, timeout=1)
    assert (status, said) == (1, "not ready after 1 s: sh still ran")
    wait_for(lambda: gone(int(note.read_text())))
    note.unlink()
    process = start("--timeout", "60", "exec", "--", "sh", "-c", script)
    wait_for(note.exists)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    wait_for(lambda: gone(int(note.read_text())))


def test_the_death_of_the_main_process_ends_it(port: int) -> None:
    with subprocess.Popen(["sleep", "100"]) as main:
        process = start("--timeout", "60", "tcp", f"127.0.0.1:{port}", MAINPID=str(main.pid))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        main.kill()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.startswith(
        f"the main process (PID {main.pid}) ended before the service was ready: connect to"
    )
    status, said = run("file", "/none", timeout=60, MAINPID=str(main.pid))
    assert (status, "ended before" in said) == (1, True)


def test_the_death_of_the_main_process_ends_it_without_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["sleep", "100"]) as main:
        waiter = ready.Waiter(60, main.pid)
        assert not waiter.wait(0.01)
        main.kill()
        main.wait()
        with pytest.raises(ready.GiveUp, match="ended before"):
            waiter.wait(30)
    with pytest.raises(ready.GiveUp, match="sleep still ran"):
        ready.wait_until_ready(ready.Waiter(0.1, 0), 0.01, "exec", ["sleep", "100"])


@pytest.fixture
def journalctl(tmp_path: Path) -> Path:
    program = tmp_path / "journalctl"
    program.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/args\ncat {tmp_path}/out; exec sleep 100\n')
    program.chmod(0o755)
    return tmp_path


def test_log(journalctl: Path) -> None:
    (journalctl / "out").write_bytes(b"starting\ncaf\xe9\nlistening on 80\n")
    path = f"{journalctl}:{os.environ['PATH']}"
    assert run("log", r"listening on \d+$", timeout=20, PATH=path, INVOCATION_ID="abc") == (0, "")
    assert "_SYSTEMD_INVOCATION_ID=abc" in (journalctl / "args").read_text()
    status, said = run("log", "never", PATH=path, INVOCATION_ID="abc", timeout=1)
    assert (status, said) == (1, "not ready after 1 s: no line of 3 matches 'never'")
    status, said = run("log", "x", PATH=path)
    assert (status, "INVOCATION_ID is not set" in said) == (1, True)
    (journalctl / "journalctl").write_text("#!/bin/sh\nexit 3\n")
    assert run("log", "x", PATH=path, INVOCATION_ID="abc", timeout=20) == (
        1,
        "journalctl ended with status 3",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tcp"],
        ["bogus", "x"],
        ["--timeout", "x", "file", "/"],
        ["--timeout"],
        ["--bogus", "1"],
        ["file", "/", "/"],
    ],
)
def test_usage(arguments: list[str]) -> None:
    process = start(*arguments)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (2, ready.USAGE + "\n")


def test_it_imports_little() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", PROGRAM, "file", "/"],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {
        "re",
        "json",
        "subprocess",
        "pathlib",
        "socket",
        "argparse",
        "typing",
        "contextlib",
    }
