"""What any local user may send to the connection on which the controller asks: nothing of it stays."""

from __future__ import annotations

import pytest

from tests.live.conftest import Box

pytestmark = pytest.mark.live

SCRIPT = """
import os, socket, subprocess
from sysresp.systemd.bus import Bus
from sysresp.systemd.manager import SystemManager
from sysresp.systemd.messages import *

def pages():
    return int(open("/proc/self/statm").read().split()[1])

manager = SystemManager()
manager.pending_jobs()
listed = subprocess.run(["busctl", "list", "--no-legend"], capture_output=True, text=True).stdout
(name,) = [line.split()[0] for line in listed.splitlines() if line.split()[1] == str(os.getpid())]
before = pages()
child = os.fork()
if not child:
    os.setgid(65534)
    os.setuid(65534)
    bus = Bus()
    bus.open()
    head = field(PATH, "o", "/a") + field(INTERFACE, "s", "a.b") + field(MEMBER, "s", "C")
    head += field(DESTINATION, "s", name) + bytes((SIGNATURE, 1, ord("g"), 0)) + signature("s")
    body = string("x" * 500)
    signal = HEADER.pack(ENDIAN, SIGNAL, 1, 1, len(body), 7, len(head)) + head
    signal += bytes(-len(signal) % 8) + body
    peer = socket.socket(fileno=os.dup(bus.fd()))
    peer.setblocking(True)
    for _ in range(150):
        peer.sendall(signal * 200)
    os._exit(0)
while os.waitpid(child, os.WNOHANG)[0] == 0:
    manager.pending_jobs()
    manager.rest()
manager.pending_jobs()
manager.rest()
private = SystemManager(private=True)
private.pending_jobs()
private.rest()
print((pages() - before) * os.sysconf("SC_PAGE_SIZE") >> 20, private._bus.fd())
"""


def test_what_others_send_is_let_go(box: Box) -> None:
    """30,000 signals would be 40 MB; a connection without a broker, which hears all, is closed."""
    box.write("/tmp/flood.py", SCRIPT)
    grown, descriptor = box.run([box.python, "/tmp/flood.py"], check=True).stdout.split()
    assert int(grown) < 6
    assert descriptor == "-1"
