"""What the ledger does when it is killed, full, read-only, damaged, moved away; and who may read it.

The full and the read-only file system are real ones, in a mount namespace; the damage is random bytes.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sysresp.controller.events import Exit, Note, UnitMemory
from sysresp.controller.ledger import Ledger, LedgerTrouble
from sysresp.controller.reader import Reader
from sysresp.controller.tables import Stored
from tests.conftest import no_live_reason
from tests.ledger_scenes import WHEN, as_user, batch, check

TOP = Path(__file__).parent.parent
OWNER, OTHER = 54321, 54322


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Give a directory of OWNER's that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o755)  # noqa: PTH101
        if os.geteuid() == 0:
            os.chown(name, OWNER, OWNER)
        yield Path(name)


def filled(path: str, batches: int = 10) -> Ledger:
    ledger = Ledger(path)
    ledger.open()
    for number in range(1, batches + 1):
        ledger.commit(**batch(number))
    return ledger


def writer(path: str, **how: Any) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.ledger_scenes", path]
    return subprocess.Popen(words, cwd=TOP, text=True, stdout=subprocess.PIPE, **how)


def test_a_writer_that_is_killed_leaves_whole_batches(path: str) -> None:
    chance = random.Random(4)
    last = 0
    for _ in range(15):
        with writer(path) as child:
            assert child.stdout is not None
            told = 0
            for line in child.stdout:
                told = int(line)
                if chance.random() < 0.01:
                    break
            child.kill()
        found = check(path)  # from beside a log that nobody has closed
        assert found >= told > last
        last = found
    assert last > 500


@pytest.mark.parametrize("size", [65536, 150_000, 400_000, 1_200_000])
def test_a_write_that_kills_halfway_leaves_whole_batches(path: str, size: int) -> None:
    """The kernel ends the process inside of the very write that goes beyond its limit (setrlimit(2))."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1777, size + 1777))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    code = "import signal, tests.ledger_scenes as s; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); s.main()"
    words = [sys.executable, "-c", code, path]
    done = subprocess.run(words, cwd=TOP, text=True, capture_output=True, preexec_fn=limit, check=False)
    assert done.returncode == -signal.SIGXFSZ
    told = int((done.stdout.split() or ["0"])[-1])
    assert check(path) in {told, told + 1}
    ledger = Ledger(path)
    begin = int(ledger.open().cursor[2:] or 0)
    ledger.commit(**batch(begin + 1))
    assert check(path) == begin + 1
    ledger.close()


def in_namespace(code: str, path: str) -> None:
    """Run the code in a mount namespace of its own, with the scenes imported and `path` set."""
    if reason := no_live_reason():
        pytest.skip(reason)
    begin = (
        "import os, subprocess, sys\nfrom pathlib import Path\nfrom tests.ledger_scenes import *\n"
        "from sysresp.controller.ledger import LedgerTrouble\npath = sys.argv[1]\n"
        "def mount(*words): subprocess.run(['mount', *words], check=True)\n"
        "def trouble(act):\n"
        "    try: act()\n"
        "    except LedgerTrouble as error: return error\n"
        "    raise AssertionError('no trouble')\n"
    )
    words = ["unshare", "--mount", sys.executable, "-c", begin + code, path]
    done = subprocess.run(words, cwd=TOP, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_takes_nothing_and_goes_on_when_there_is_room(path: str) -> None:
    in_namespace(
        """
mount('-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', os.path.dirname(path))
filler = Path(path).with_name('filler')
filler.write_bytes(bytes(400_000))
ledger = Ledger(path)
ledger.open()
number, seen = 1, []
while len(seen) < 3:
    try:
        ledger.commit(**batch(number))
    except LedgerTrouble as error:
        seen.append(error)
    else:
        number, seen = number + 1, []
assert 'full' in seen[0].why, seen[0].why
assert not seen[0].is_new
assert number > 100, number
assert check(path) == number - 1
filler.unlink()
for more in range(number, number + 20):
    ledger.commit(**batch(more))
assert check(path) == number + 19
ledger.close()
assert check(path) == number + 19
""",
        path,
    )


def test_a_full_disk_at_the_start_is_told(path: str) -> None:
    in_namespace(
        """
mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', os.path.dirname(path))
filler = Path(path).with_name('filler')
try: filler.write_bytes(bytes(1_000_000))
except OSError: pass
ledger = Ledger(path)
assert trouble(ledger.open).stored.units == {}
trouble(lambda: ledger.commit(**batch(1)))
filler.unlink()
mount('-o', 'remount,size=1m', os.path.dirname(path))
ledger.commit(**batch(1))
assert check(path) == 1
""",
        path,
    )


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_read_only_disk_still_tells_the_memory(path: str, is_closed: bool) -> None:
    in_namespace(
        f"""
where = os.path.dirname(path)
mount('-t', 'tmpfs', 'tmpfs', where)
ledger = Ledger(path)
ledger.open()
for number in range(1, 11):
    ledger.commit(**batch(number))
if {is_closed}:
    ledger.close()
mount('--bind', where, where)
mount('-o', 'remount,bind,ro', where)
other = Ledger(path)
error = trouble(other.open)
assert error.stored.cursor == 's=10', error.stored
assert error.stored.units['every.service'] == batch(10)['units']['every.service']
error = trouble(lambda: other.commit(**batch(11)))
assert 'cannot write' in error.why, error.why
assert check(path) == 10
mount('-o', 'remount,bind,rw', where)
other.commit(**batch(11))
assert check(path) == 11
""",
        path,
    )


def test_another_writer_is_waited_for_a_moment_only(path: str) -> None:
    ledger = filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerTrouble, match="locked"):
        ledger.commit(**batch(11))
    other.execute("ROLLBACK")
    ledger.commit(**batch(11))
    assert check(path) == 11
    other.close()
    ledger.close()


def again(ledger: Ledger, **what: Any) -> list[LedgerTrouble]:
    """Commit as the loop does: until it is in; return the troubles on the way."""
    troubles = []
    for _ in range(3):
        try:
            ledger.commit(**what)
        except LedgerTrouble as trouble:
            troubles.append(trouble)
        else:
            return troubles
    raise AssertionError([trouble.why for trouble in troubles])


@pytest.mark.parametrize("place", ["header", "schema", "anywhere", "everything", "wal", "empty", "short"])
@pytest.mark.parametrize("is_running", [True, False])
def test_a_damaged_file_never_stops_the_controller(path: str, place: str, is_running: bool) -> None:
    chance = random.Random(f"{place}{is_running}")
    memory = {"every.service": UnitMemory(failures=7)}
    for _ in range(6):
        ledger = filled(path, 60)
        if not is_running:
            ledger.close()
        content = bytearray(Path(path).read_bytes())
        begin, length = {
            "header": (0, 100),
            "schema": (100, 3000),
            "anywhere": (chance.randrange(len(content)), 5000),
            "everything": (0, len(content)),
        }.get(place, (0, 0))
        content[begin : begin + length] = chance.randbytes(min(length, len(content) - begin))
        log = Path(f"{path}-wal")
        if place == "wal" and log.exists():
            log.write_bytes(chance.randbytes(log.stat().st_size))
        elif place in {"empty", "short"}:
            os.truncate(path, 0 if place == "empty" else len(content) // 3)
        elif place != "wal":
            Path(path).write_bytes(content)
        if not is_running:
            ledger.open()
        again(ledger, rows=[Exit("new.service", "1" * 32, WHEN)], units=memory, cursor="s=new")
        again(ledger, **batch(61))
        ledger.close()
        stored = Ledger(path)
        found = stored.open()
        if is_running and not found.cursor:  # its pages were in memory: only the next start finds the damage
            assert list(Path(path).parent.glob("ledger.db.corrupt-*")) or place == "empty"
            again(stored, rows=[Exit("new.service", "1" * 32, WHEN)])
            again(stored, **batch(61))
            found = stored.open()
        assert found.cursor == "s=61"
        assert found.units["every.service"] == batch(61)["units"]["every.service"]
        with Reader(path) as reader:
            assert len(reader.exits(["new.service"])) == 1
        stored.close()
        names = {p.name for p in Path(path).parent.iterdir()}
        assert len([n for n in names if ".corrupt-" in n and not n.endswith("-wal")]) <= 2
        for name in names:
            if ".corrupt-" not in name:
                (Path(path).parent / name).unlink()


def test_a_damaged_file_is_told_in_the_new_one(path: str) -> None:
    Path(path).write_bytes(b"no database at all " * 1000)
    ledger = Ledger(path)
    assert ledger.open() == Stored({}, {}, "")
    with Reader(path) as reader:
        found = [told.what for told in reader.events()[0]]
    assert [isinstance(one, Note) and ".corrupt-1" in one.text for one in found] == [True]
    assert Path(f"{path}.corrupt-1").read_bytes().startswith(b"no database")
    ledger.close()


def test_the_database_of_another_program_is_moved_aside(path: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    ledger = filled(path)
    assert check(path) == 10
    assert Path(f"{path}.corrupt-1").exists()
    ledger.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_was_taken_away_is_begun_anew(path: str, how: str) -> None:
    ledger = filled(path)
    if how == "removed":
        for one in Path(path).parent.iterdir():
            one.unlink()
    else:
        filled(f"{path}2", 3).close()
        Path(f"{path}2").replace(path)
        Path(f"{path}-wal").unlink()
        Path(f"{path}-shm").unlink()
    troubles = again(ledger, **batch(11))
    assert [trouble.is_new for trouble in troubles] == [True]
    with Reader(path) as reader:
        assert reader.stored().cursor == "s=11"
    ledger.close()


def test_a_link_in_its_place_is_refused(path: str) -> None:
    target = Path(path).with_name("target")
    target.write_text("mine")
    Path(path).symlink_to(target)
    ledger = Ledger(path)
    for act in (ledger.open, lambda: ledger.commit(**batch(1))):
        with pytest.raises(LedgerTrouble, match="symbolic links"):
            act()
    assert target.read_text() == "mine"


root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is other users too")


@root
@pytest.mark.parametrize("reader", [0, OWNER, OTHER])
@pytest.mark.parametrize("state", ["open", "closed", "killed"])
def test_anybody_reads_it(open_directory: Path, state: str, reader: int) -> None:
    path = str(open_directory / "ledger.db")
    kept = None
    if state == "killed":
        assert as_user(OWNER, lambda: filled(path) and None) is None  # ends without closing
    else:
        kept = filled(path)
        for one in open_directory.iterdir():
            os.chown(one, OWNER, OWNER)
        if state == "closed":
            kept.close()
    before = {p.name for p in open_directory.iterdir()}
    assert (state == "closed") == (before == {"ledger.db"})
    for _ in range(2):
        assert as_user(reader, lambda: check(path)) == 10
    assert {p.name for p in open_directory.iterdir()} == before
    assert {p.stat().st_uid for p in open_directory.iterdir()} == {OWNER}
    if kept is not None:
        kept.commit(**batch(11))
        assert as_user(reader, lambda: check(path)) == 11
        kept.close()


@root
@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal"])
@pytest.mark.parametrize("is_there", [True, False])
def test_root_follows_no_link_that_the_owner_planted(
    open_directory: Path, name: str, is_there: bool
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as secret:
        target = Path(secret, "target")
        if is_there:
            target.write_bytes(b"secret" * 1000)
        path = str(open_directory / "ledger.db")
        as_user(OWNER, lambda: filled(path) and None)
        planted = Path(open_directory, name)
        planted.unlink(missing_ok=True)
        planted.symlink_to(target)
        with Reader(path) as reader, suppress(LedgerTrouble):
            reader.exits()
        assert os.geteuid() == 0
        assert target.exists() == is_there
        if is_there:
            assert target.read_bytes() == b"secret" * 1000
        assert {p.lstat().st_uid for p in open_directory.iterdir() if p != planted} <= {OWNER}


def test_a_reader_sees_whole_batches_while_they_are_written(path: str) -> None:
    with writer(path) as child:
        assert child.stdout is not None
        child.stdout.readline()
        last = 0
        with Reader(path) as reader:
            while last < 300:
                if reader.has_changed():
                    units, meta, cursor = reader.stored()
                    assert meta["count"] == cursor[2:]
                    assert units["every.service"].failures == int(cursor[2:])
                    assert int(cursor[2:]) >= last
                    last = int(cursor[2:])
        child.kill()
