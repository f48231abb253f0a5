"""What the tests of the ledger have in common: batches that say who wrote them, and writers to be killed.

`python -m tests.ledger_scenes PATH` commits batch after batch, each a step on from the last, and prints its
number when it is in; `check` tells from the file alone which batch was the last, and that it and all before
it are there as a whole. `as_user` does something with the rights of another user, in a child.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from sysresp.controller.events import Exit, Fate, Note, UnitMemory, Wait
from sysresp.controller.ledger import Ledger
from sysresp.controller.reader import Reader

WHEN = 1_700_000_000.0
UNITS = tuple(f"shop-web@{number}.service" for number in range(3))


def run_of(number: int) -> str:
    return f"{number:032x}"


def batch(number: int) -> dict[str, Any]:
    """Return the arguments of `Ledger.commit` for the batch of this number, counted from 1."""
    unit = UNITS[number % len(UNITS)]
    at = WHEN + number
    row = Exit(unit, run_of(number), at, "exit-code", 1, number % 200, Fate.RETRY, at + 5)
    memory = UnitMemory(run_of(number), failures=number, wait=Wait.BACKOFF, recent=(1.5, float(number)))
    return {
        "rows": [row],
        "notes": [Note("reset", unit, "x" * (number % 300), WHEN + number)],
        "units": {unit: memory, "every.service": memory},
        "meta": {"count": str(number)},
        "cursor": f"s={number}",
        "when": WHEN + number,
    }


def check(path: str) -> int:
    """Return the number of the last batch in the file; AssertionError if one is missing or not whole."""
    with Reader(path) as reader:
        units, meta, cursor = reader.stored()
        exits, notes = reader.exits(), reader.events()[0]
    last = int(cursor[2:] or 0)
    assert [one.invocation for one in exits] == [run_of(n) for n in range(1, last + 1)]
    assert sum(isinstance(one.what, Note) and one.what.kind == "reset" for one in notes) == last
    if last:
        assert meta["count"] == str(last)
        assert units["every.service"] == batch(last)["units"]["every.service"]
    return last


def as_user(user: int, act: Callable[[], Any]) -> Any:
    """Return what `act` returns, as JSON has it, when that user does it; an error is told as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            said = json.dumps(act())
        except BaseException as error:
            said = json.dumps(f"{type(error).__name__}: {error}")
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return json.loads(said)


def main() -> None:
    ledger = Ledger(sys.argv[1])
    begin = int(ledger.open().cursor[2:] or 0)
    for number in range(begin + 1, 1_000_000):
        ledger.commit(**batch(number))
        if number % 50 == 0:
            while ledger.prune(1e9, 1 << 30, WHEN + number):
                pass
        print(number, flush=True)


if __name__ == "__main__":
    main()
