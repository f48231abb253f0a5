"""`sysresp top` in a real terminal (tmux): what is on the screen, what keys do, what is left behind.

tmux runs in the box beside systemd; a screen is what `capture-pane` gives.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import Box, fresh_box
from tests.live.installed import write_file
from tests.live.storms import enable
from tests.live.until import until

pytestmark = pytest.mark.live

TEXT = """
[services.calm]
command = ["/bin/sleep", "infinity"]
instances = 3
[services.busy]
command = ["/bin/sh", "-c", "while :; do sleep .2; done"]
[services.fails]
command = ["/bin/sh", "-c", "sleep .2; echo no such luck; exit 7"]
restart = { when = "on-failure", delay = "30s" }
"""


IDLE_SEC = 10 if os.environ.get("SYSRESP_FULL") else 4
_numbers = itertools.count()


class Terminal:
    """A tmux of its own in the box, and in it a shell, which says how the program ended."""

    def __init__(self, box: Box, width: int, height: int, *words: str) -> None:
        self.box = box
        self.socket = f"/tmp/tmux-{next(_numbers)}"
        size = ["-x", str(width), "-y", str(height)]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "PS1='$ ' exec bash --norc -i")
        self.shows(r"^\$")
        self.type(f"clear; {box.python} -m sysresp {' '.join(words)}; echo ended $?")

    def type(self, line: str) -> None:
        self.keys("-l", line)
        self.keys("Enter")

    def is_ours(self) -> bool:
        """Say whether the program has the whole screen, and no cursor."""
        return self.tmux("display-message", "-p", "#{alternate_on}#{cursor_flag}").strip() == "10"

    def is_as_it_was(self) -> bool:
        """Say whether the shell has its screen, its cursor, its modes."""
        if self.tmux("display-message", "-p", "#{alternate_on}#{cursor_flag}").strip() != "01":
            return False
        self.type("clear; stty -a")
        return not re.search(r"-icanon|-echo |-isig|-opost", self.shows(r"opost(.|\n)*icanon"))

    def tmux(self, *words: str) -> str:
        done = self.box.run(["tmux", "-u", "-S", self.socket, *words], env={"LC_ALL": "C.UTF-8"}, check=True)
        return done.stdout

    def screen(self, *words: str) -> str:
        return self.tmux("capture-pane", "-p", *words)

    def keys(self, *names: str) -> None:
        self.tmux("send-keys", *names)

    def shows(self, pattern: str, deadline_sec: float = 15.0) -> str:
        """Wait until the screen has it, and return the screen."""

        def look() -> str:
            found = self.screen()
            return found if re.search(pattern, found, re.MULTILINE) else ""

        try:
            return until(look, pattern, deadline_sec)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen()}") from None

    def pid(self) -> int:
        """Return the program's process in the box: the shell's first child."""
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        return int(self.box.run(["pgrep", "-P", shell], check=True).stdout.split()[0])


@pytest.fixture(scope="module", params=["host", pytest.param("trixie", marks=pytest.mark.trixie)])
def shop(request: pytest.FixtureRequest) -> Iterator[Box]:
    """A systemd with the services and a controller, for all tests here: each has a terminal of its own."""
    with fresh_box(request.param) as box:
        if not box.path("/usr/bin/tmux").exists():
            pytest.skip("tmux is not installed in this box")
        enable(box)
        box.sysresp("apply", "--no-rollback", write_file(box, TEXT))
        yield box


@pytest.fixture(autouse=True)
def fresh(shop: Box) -> Iterator[None]:
    """Begin with `fails` waiting for long, and end without a terminal."""
    shop.systemctl("restart", "--no-block", f"{shop.project}-fails.service")
    yield
    for socket in shop.path("/tmp").glob("tmux-[0-9]*"):
        shop.run(["tmux", "-S", f"/tmp/{socket.name}", "kill-server"])
        socket.unlink(missing_ok=True)


def keep(name: str, screen: str) -> None:
    """Leave the screen where a person may look at it."""
    if place := os.environ.get("SYSRESP_SCREENS"):
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / name).write_text(screen)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (30, 8)])
def test_screens(shop: Box, width: int, height: int) -> None:
    terminal = Terminal(shop, width, height, "top")
    first = terminal.shows(r"^fails +waiting")
    lines = first.split("\n")[:-1]
    assert len(lines) == height
    assert lines[0].startswith("sysresp: 5 services")
    assert all(len(line) <= width for line in lines)
    if width >= 80:
        until(lambda: re.search(r"^busy +running +\d+\.\d", terminal.screen(), re.MULTILINE), "CPU is shown")
        terminal.shows(r"^\d\d:\d\d:\d\d +fails +exit status 7 +will retry at \d\d:\d\d:\d\d")
        terminal.shows(r"^fails +waiting to restart: exit .* in \d+s$")
        assert "? help" in lines[-1]
    keep(f"{shop.version}-{width}x{height}", terminal.screen("-e"))
    terminal.keys("?")
    terminal.shows("select a service" if width >= 80 else "select")
    keep(f"{shop.version}-{width}x{height}-help", terminal.screen("-e"))
    terminal.keys("q")
    terminal.shows("^fails")
    terminal.keys("q")
    terminal.shows("^ended 0$")


def test_a_crash_is_on_the_screen_within_300_ms(shop: Box) -> None:
    terminal = Terminal(shop, 80, 24, "status", "--watch")
    terminal.shows(r"^busy +running +\d")
    took = []
    for n in range(3):
        unit = f"{shop.project}-calm@{n % 3 + 1}.service"
        before = shop.show(unit, "MainPID")
        log = shop.path(f"/tmp/pipe-{shop.project}")
        log.write_text("")
        terminal.tmux("pipe-pane", f"exec cat >> /tmp/pipe-{shop.project}")
        shop.run(["kill", "-KILL", before], check=True)
        killed = time.monotonic()
        until(lambda: "killed by SIGKILL" in log.read_text(errors="replace"), "the crash is drawn", 5)  # noqa: B023
        took.append(time.monotonic() - killed)
        print(f"\nsystemd {shop.version}: drawn {took[-1]:.3f}s after kill(1) had returned")
        terminal.tmux("pipe-pane")
        until(lambda: shop.show(unit, "SubState") == "running", "it is up again")  # noqa: B023
    assert sorted(took)[len(took) // 2] < 0.3


def test_keys(shop: Box) -> None:
    terminal = Terminal(shop, 100, 24, "top")
    terminal.shows(r"^fails")
    terminal.keys("w")
    terminal.shows("exit status 7")
    terminal.shows(r"^q back")
    keep(f"{shop.version}-why", terminal.screen("-e"))
    terminal.keys("Escape")
    terminal.shows(r"^calm@1")
    pid = shop.show(f"{shop.project}-calm@1.service", "MainPID")
    for _ in range(20):  # `fails` is above while it waits, and among the others for the moment that it runs
        terminal.keys("r")
        asked = re.search(r"^restart (\S+)\? y", terminal.shows(r"^restart \S+\? y"), re.MULTILINE)
        assert asked
        terminal.keys("n")
        terminal.shows(r"\? help")
        if asked[1] == "calm@1":
            break
        terminal.keys("k" if asked[1].startswith(("calm", "busy")) else "j")
    terminal.keys("r")
    terminal.shows(r"^restart calm@1\? y")
    terminal.keys("n")
    terminal.shows(r"\? help")
    assert shop.show(f"{shop.project}-calm@1.service", "MainPID") == pid
    terminal.keys("r", "y")
    terminal.shows("1 restarted")
    assert shop.show(f"{shop.project}-calm@1.service", "MainPID") != pid
    terminal.keys("l")
    terminal.shows(r"calm@1 \* started")
    terminal.keys("C-c")
    terminal.shows(r"^sysresp: 5 services")
    terminal.tmux("resize-window", "-x", "60", "-y", "12")
    terminal.shows(r"^sysresp: 5 services")
    until(lambda: len(terminal.screen().split("\n")) == 13, "it has the new size")
    terminal.keys("C-c")
    terminal.shows("ended 0$")


@pytest.mark.parametrize(("how", "status"), [("TERM", 143), ("HUP", 129), ("INT", 0)])
def test_the_terminal_is_as_it_was(shop: Box, how: str, status: int) -> None:
    terminal = Terminal(shop, 80, 24, "top")
    terminal.shows("^fails")
    assert terminal.is_ours()
    shop.run(["kill", f"-{how}", str(terminal.pid())], check=True)
    terminal.shows(f"^ended {status}$")
    assert terminal.is_as_it_was()


def test_ctrl_z_and_back(shop: Box) -> None:
    terminal = Terminal(shop, 80, 24, "top")
    terminal.shows("^fails")
    terminal.keys("C-z")
    terminal.shows("^ended 148$")
    assert terminal.is_as_it_was()
    terminal.type("fg")
    terminal.shows("^fails")
    assert terminal.is_ours()
    terminal.keys("q")
    until(terminal.is_as_it_was, "the shell is back")


def test_idle_it_costs_next_to_nothing(shop: Box) -> None:
    shop.systemctl("stop", f"{shop.project}-fails.service")
    terminal = Terminal(shop, 80, 24, "top")
    terminal.shows(r"^busy +running +\d")
    stat = shop.path(f"/proc/{terminal.pid()}/stat")

    def cpu() -> float:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    began, before = time.monotonic(), cpu()
    until(lambda: time.monotonic() > began + IDLE_SEC, "so long", IDLE_SEC + 2)
    share = (cpu() - before) / (time.monotonic() - began)
    print(f"\nsystemd {shop.version}: {share:.2%} of a processor while nothing happens")
    assert share < 0.01


def test_without_a_terminal_it_says_what_to_do(shop: Box) -> None:
    done = shop.sysresp("top")
    assert done.returncode == 2
    assert "sysresp status" in done.stderr
