"""What a scrape looks at: manifests, systemd, the ledger; a snapshot for `metric_families`.

Owns the gathering. Never writes: the ledger is opened for reading only, so a scrape may be made by anybody,
and works where the controller is stopped, broken or was never there. Rule: what cannot be read is left out
of the snapshot and said by one of its fields; only a systemd that does not answer ends a scrape.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from sysresp import __version__
from sysresp.cli import own_status, remembered, status
from sysresp.cli.metric_families import Queue, Snapshot
from sysresp.controller import own, remarks
from sysresp.controller.fallback import read_fallback
from sysresp.controller.reader import Reader
from sysresp.controller.tables import LedgerTrouble
from sysresp.model import Scope
from sysresp.ports import Host
from sysresp.reconcile import layout
from sysresp.reconcile.manifest import all_manifests


def snapshot(host: Host, scope: Scope, env: Mapping[str, str]) -> Snapshot:
    """Look at everything once."""
    now = remembered.Now(host.clock.now(), host.clock.monotonic())
    owned = [
        one
        for where in layout.state_dirs(scope, env)
        for one in all_manifests(host.files, where)
        if one.project not in own.PROJECTS
    ]
    boot = now.epoch(0.0)
    found = [row for one in owned for row in status.look(one, one.units, host.manager, boot)]
    unit = own_status.unit(host.manager)
    seen = Snapshot(
        now.when,
        __version__,
        tuple(found),
        {one.project: one.generation for one in owned},
        tuple(f"{one.project}/{name}" for one in owned for name in one.alerts),
        unit,
    )
    path = remembered.ledger(scope.value, env)
    if not path:
        return seen
    gave_up = unit["active"] != "active" and read_fallback(os.path.dirname(path)) is not None  # noqa: PTH120
    seen = seen._replace(gave_up=gave_up, ledger_bytes=_size(path))
    try:
        with Reader(path) as reader:
            return _of_ledger(seen, reader, now, is_live=unit["active"] == "active")
    except LedgerTrouble:
        return seen


def _of_ledger(seen: Snapshot, reader: Reader, now: remembered.Now, *, is_live: bool) -> Snapshot:
    """Add what the ledger knows; of a controller that is away, only what stays true without it."""
    counts = tuple(reader.counts())
    open_ = Counter(one.root for one in reader.incidents("WHERE resolved = 0 ORDER BY id LIMIT 10000"))
    queues: dict[str, Queue] = {}
    for one in reader.messages("WHERE state = 'queued' ORDER BY id LIMIT 100000"):
        message = one.message
        queue = queues.get(message.receiver, Queue())
        overdue = max(queue.overdue_sec, seen.now - max(message.due, message.at))
        queues[message.receiver] = Queue(queue.messages + 1, overdue)
    seen = seen._replace(counts=counts, open=open_, queues=queues, is_readable=True)
    if not is_live:
        return seen
    remembered.remember(seen.rows, reader.remarkable(), now)
    return seen._replace(
        vitals=remarks.to_vitals(reader.meta(remarks.VITALS)),
        probes=remarks.to_probes(reader.meta(remarks.PROBES)),
    )


def _size(path: str) -> int:
    total = 0
    for end in ("", "-wal", "-shm"):
        with suppress(OSError):
            total += os.lstat(path + end).st_size
    return total
