"""Makes what is missing of a table, row after row, and writes the table after each.

Needs nothing but the directory: every job is kept there once, whichever table needs it. A killed command continues
where it was; a repeated one makes nothing. Several commands may share a directory, for different rows or tables: a job
that two of them need is made by one.
"""

from __future__ import annotations

from pathlib import Path

from genie_ray.base.progress import console
from genie_ray.base.session import ray_session
from genie_ray.reproducing.graph import EVALUATION, Job
from genie_ray.reproducing.pictures import DRAWERS
from genie_ray.reproducing.plan import Plan
from genie_ray.reproducing.stages import is_made, make
from genie_ray.reproducing.table import write_results

ENDS = (EVALUATION, *DRAWERS)
"""Kinds of the jobs that rows and pictures end with."""


def reproduce(plan: Plan, out: Path) -> Path:
    """Makes the chosen rows of a table; returns the path of its table.md.

    Raises:
        ValueError: what a stage refuses, such as a cluster without room for it.
    """
    out = out.resolve()
    pending = missing_jobs(plan, out)
    console.print(f"{plan.name}, {plan.scale}: {len(pending)} of {len(plan.jobs())} jobs are to be made")
    if pending:
        with ray_session(plan.ray):
            for number, job in enumerate(pending, 1):
                console.print(f"── {number} of {len(pending)}: {job.kind}, {job.name}, seed {job.config.seed}")
                make(job, out)
                if job.kind in ENDS:
                    write_results(plan, out)
    return write_results(plan, out)


def missing_jobs(plan: Plan, out: Path) -> list[Job]:
    """The jobs that are still to be made, in order; what only made ones needed may be gone."""
    found: dict[str, Job] = {}

    def need(job: Job) -> None:
        if job.identity not in found and not is_made(job, out):
            for other in job.inputs.values():
                need(other)
            found[job.identity] = job

    for job in plan.jobs():
        if job.kind in ENDS:
            need(job)
    return list(found.values())
