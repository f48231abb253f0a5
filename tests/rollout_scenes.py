"""Services with instances, running on a fake host, and what a plan does to them."""

from __future__ import annotations

from sysresp.ports import Host
from sysresp.reconcile.steps import JobVerb, Pause, Plan, RunJobs, Settle, Step
from tests.fakes import FakeManager, fake_host
from tests.plan_scenes import Entry, converge, desired_of, plan_for, scene


def applied(entries: dict[str, Entry]) -> tuple[Host, FakeManager]:
    """Return a host on which these services run."""
    _, manager = scene()
    host = fake_host(manager=manager)
    assert converge(host, desired_of(entries)).ok
    return host, manager


def web(number: int) -> str:
    return f"shop-web@{number}.service"


def rolling(made: Plan) -> list[Step]:
    """Return the steps from the first job on that starts something."""
    kinds = (RunJobs, Settle, Pause)
    return [step for step in made.steps if isinstance(step, kinds) and not is_stop(step)]


def is_stop(step: Step) -> bool:
    return isinstance(step, RunJobs) and all(job.verb is JobVerb.STOP for job in step.jobs)


def changed(before: Entry, **keys: object) -> tuple[Plan, Plan]:
    """Return the plans of another version and of another config of one service."""
    host, _ = applied({"web": before})
    again = before._replace(**keys)
    return (
        plan_for(host, desired_of({"web": again._replace(version=2)})),
        plan_for(host, desired_of({"web": again._replace(config=2)})),
    )


def units_of(step: RunJobs) -> list[str]:
    """Return the units of these jobs."""
    return [job.unit for job in step.jobs]
