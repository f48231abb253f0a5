"""In which order jobs are asked for: all at once, or instances in batches, each of which has settled first.

Owns the batches, the watch over each of them, and the watch at the end. Pure. What is started or stopped for
good is never part of a batch: it takes nothing down that was up. Two cases could be cut into batches and are
not, because systemd would act on more than the batch (systemd.unit(5), Requires=): instances that require a
unit of another service that restarts, too, go with it; and where another service requires the instances, it
would be down with every batch, so that they all go at once unless the file itself says how they go.

Rules: batches hold the jobs that there are anyway, each once; what was down before, or may fail, is no
reason to leave out the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from sysresp.model import Rollout
from sysresp.ports import UnitState
from sysresp.reconcile.decide import MASKED, Needs, Verdict, is_running
from sysresp.reconcile.steps import Job, JobVerb, Pause, Rolling, RunJobs, Settle, Step, Verb
from sysresp.units.desired import Desired, Policy

MANY = 64
"""From so many starts on, one job of the target is better than one job each, even among restarts."""

_JOBS = {Verb.START: JobVerb.START, Verb.RESTART: JobVerb.RESTART, Verb.RELOAD: JobVerb.RELOAD}
_USUAL = Policy()
_UNSAID = Rollout()


class Acting(NamedTuple):
    """What is decided on each unit, and what that depends on."""

    desired: Desired
    verdicts: Mapping[str, Verdict]
    rows: Mapping[str, UnitState]
    depends: Mapping[str, Needs]  # of all units; of none where nothing restarts
    settle_sec: float | None  # for all; None: as the file says

    # jobs

    def jobs(self, pulled: frozenset[str], cycled: Container[str]) -> tuple[Job, ...]:
        """Return the jobs in an order in which starting works; one job of the target if that is all.

        `pulled` are the units that the target pulls in, by the links as they will be; `cycled` are stopped
        first, because a socket of theirs changed.
        """
        own = {name: v for name, v in self.verdicts.items() if v.verb in _JOBS and not v.along}
        starts = {name for name, v in own.items() if v.verb is Verb.START}
        target = self.desired.target
        jobs = []
        covered: frozenset[str] = frozenset()
        if self._target_starts(starts, len(own), pulled):
            jobs.append(Job(JobVerb.START, target, pulls=tuple(sorted(pulled & starts))))
            covered = (pulled & starts) | {target}
        for name, v in own.items():
            if name not in covered and v.verb is not None:
                jobs.append(Job(JobVerb.START if name in cycled else _JOBS[v.verb], name))
        return tuple(jobs)

    def _target_starts(self, starts: set[str], total: int, pulled: frozenset[str]) -> bool:
        target, rows = self.desired.target, self.rows
        if len(starts) < 2 or (len(starts) < total and len(starts) < MANY):
            return False
        up = target in rows and rows[target].active_state == "active"
        if target not in starts and (len(starts) < MANY or not up):
            return False
        masked = {name for name, v in self.verdicts.items() if v.reason == MASKED}
        return all(name in starts or name in masked or is_running(rows.get(name)) for name in pulled)

    # batches

    def rollouts(self) -> tuple[Rolling, ...]:
        """Return how the instances of each service go, of which several restart or reload."""
        units = self.desired.units
        going: dict[str, list[str]] = {}
        for name, v in self.verdicts.items():
            unit = units[name]
            again = v.verb in (Verb.RESTART, Verb.RELOAD) and not (v.along or v.halted)
            if unit.instance and again:  # a socket of an instance is always halted first
                going.setdefault(unit.service, []).append(name)
        several = {service: names for service, names in going.items() if len(names) > 1}
        if not several:
            return ()
        leaders, followers = self._tied()
        up = Counter(u.service for u in units.values() if u.main and self._was_up(u.name))
        found = []
        for service, names in several.items():
            policy = self._policy(service)
            size = policy.rollout.parallel or max(1, up[service] // 4)
            # What is down anyway goes first: then no batch adds to it.
            free = sorted((n for n in names if n not in leaders), key=self._was_up)
            reason = ""
            if not free:
                free, size = names, len(names)
                reason = f"they restart along with {leaders[names[0]]}"
            elif service in followers and policy.rollout == _UNSAID:
                size = len(names)
                reason = f"{followers[service]} restarts along with them, and would with every batch"
            batches = tuple(tuple(free[at : at + size]) for at in range(0, len(free), size))
            if reason or len(batches) > 1:
                stop = policy.rollout.stop_on_failure and not policy.ignore_start_failure
                found.append(
                    Rolling(
                        service=service,
                        batches=batches,
                        settle_sec=self._settle_sec(service),
                        pause_sec=policy.rollout.pause_sec,
                        stop_on_failure=stop,
                        reason=reason,
                    )
                )
        return tuple(found)

    def _tied(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return what takes each unit along, and who goes along with each service; across services only."""
        restarting = {name for name, v in self.verdicts.items() if v.verb is Verb.RESTART}
        units = self.desired.units
        leaders: dict[str, str] = {}
        followers: dict[str, str] = {}
        for name in sorted(restarting):
            for leader in sorted(self.depends[name].follows & restarting):
                if units[leader].service != units[name].service:
                    leaders.setdefault(name, leader)
                    followers.setdefault(units[leader].service, name)
        return leaders, followers

    # steps

    def steps(self, jobs: Sequence[Job], rollouts: Sequence[Rolling]) -> list[Step]:
        """Return the jobs as steps, batch by batch, each watched, and at the end a watch over the rest."""
        number = {name: n for one in rollouts for n, batch in enumerate(one.batches) for name in batch}
        batches: list[list[Job]] = [[] for _ in range(1 + max(number.values(), default=0))]
        for job in jobs:
            batches[number.get(job.unit, 0)].append(job)
        freely = {one.service for one in rollouts if not one.stop_on_failure}
        left = [n for n, v in self.verdicts.items() if v.verb in _JOBS and self.desired.units[n].main]
        made: list[Step] = []
        for n, batch in enumerate(batches):
            made += [RunJobs(tuple(batch))] if batch else []
            going = [one for one in rollouts if n + 1 < len(one.batches)]
            if going:
                # What systemd restarts along may go down with the next batch again: it settles at the end.
                here = [u for u in left if number.get(u, 0) == n and not self.verdicts[u].along]
                left = [u for u in left if number.get(u, 0) != n or self.verdicts[u].along]
                made.append(self._watch(here, freely))
                pause = max(one.pause_sec for one in going)
                made += [Pause(pause)] if pause else []
        left = [unit for unit in left if self._settle_sec(self.desired.units[unit].service) > 0]
        return [*made, self._watch(left)] if left else made

    def _watch(self, names: Sequence[str], freely: Container[str] = ()) -> Settle:
        """Return the watch over these units; what fails of the services in `freely` holds up nobody."""
        services = {name: self.desired.units[name].service for name in names}
        return Settle(
            tuple((name, self._settle_sec(service)) for name, service in services.items()),
            frozenset(n for n, service in services.items() if service in freely or self._is_excused(n)),
        )

    # looking up

    def _policy(self, service: str) -> Policy:
        return self.desired.policies.get(service, _USUAL)

    def _settle_sec(self, service: str) -> float:
        return self._policy(service).settle_sec if self.settle_sec is None else self.settle_sec

    def _was_up(self, name: str) -> bool:
        """Say whether the unit was up, and not only on its way or trying again."""
        row = self.rows.get(name)
        return row is not None and row.active_state in ("active", "reloading", "refreshing")

    def _is_excused(self, name: str) -> bool:
        """Say whether a failure of the unit is none of the change (`sysresp.reconcile.judge`)."""
        row = self.rows.get(name)
        failed = row is not None and (
            row.active_state == "failed" or row.sub_state.startswith("auto-restart")
        )
        return failed or self._policy(self.desired.units[name].service).ignore_start_failure
