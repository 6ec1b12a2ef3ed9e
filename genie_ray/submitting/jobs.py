"""Commands as jobs: submitted to a cluster's head over its job server, followed, stopped.

The job server is Ray's dashboard (port 8265). A token that the cluster asks for is taken from where Ray keeps it: the
file ~/.ray/auth_token, or RAY_AUTH_TOKEN_PATH, or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token; never from a command line.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from genie_ray.submitting.package import find_root, pack
from policies.ray_internals import quiet_uploads

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
POLL_S = 1.0
LOST_S = 300.0  # how long a job server may not answer before following ends
START_S = 60.0  # how long a head that has just started may take
NOT_YET = "No available agent"  # what Ray says of such a head
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")
PASSED_ON = ("GENIE_RAY_", "OMP_")  # environment variables of the caller that a job gets, by their beginning
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")  # but none with such a name


def client_at(address: str | None) -> Any:
    """A client of the cluster's job server.

    Raises:
        ValueError: nothing answers there, or it refuses.
    """
    from ray.job_submission import JobSubmissionClient

    quiet_uploads()
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    if not where.startswith(("http://", "https://")):
        raise ValueError(f"--address is {where!r}: the job server's is a URL, as in {DEFAULT_ADDRESS}")
    try:
        return JobSubmissionClient(where)
    except (ConnectionError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"no job server at {where}: {reason}") from error


def submit(client: Any, command: Sequence[str], *, name: str | None = None) -> str:
    """Submits `genie-ray COMMAND`, with the code of the clone that this is called in; returns the job's id.

    Raises:
        ValueError: this is no clone, its code is too large, or the cluster refuses the job.
    """
    root = find_root(Path.cwd())
    passed = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(PASSED_ON) and not any(part in key for part in SECRET)
    }
    job = {
        "entrypoint": shlex.join(["python", "-m", "genie_ray", *command]),
        "submission_id": name,
        "metadata": {"command": shlex.join(["genie-ray", *command])[:500]},
    }
    with tempfile.TemporaryDirectory(prefix="genie-ray-job-") as directory:
        pack(root, Path(directory))
        runtime = {"working_dir": directory, "env_vars": passed}
        begin = time.monotonic()
        while True:
            try:
                return client.submit_job(**job, runtime_env=runtime)
            except (RuntimeError, ValueError) as error:
                if NOT_YET not in str(error) or time.monotonic() - begin > START_S:
                    raise ValueError(f"the cluster refuses the job: {_reason(error)}") from error
            time.sleep(POLL_S)


def follow(client: Any, job: str, write: Callable[[str], None]) -> str:
    """Passes a job's output on as it comes, until the job ends; returns its last status.

    A job server that is gone may come back; what was passed on before is then left out.

    Raises:
        ValueError: no such job, or the job server stays away.
    """
    shown, lost_since = 0, None

    async def stream() -> None:
        nonlocal shown
        seen = 0
        async for text in client.tail_job_logs(job):
            seen += len(text)
            if seen > shown:
                write(text[-(seen - shown) :])
                shown = seen

    while True:
        try:
            status = status_of(client, job)
            asyncio.run(stream())
            if status in FINAL:
                return status
            lost_since = None
        except (ConnectionError, OSError, aiohttp.ClientError) as error:
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > LOST_S:
                raise ValueError(f"the job server has not answered for {LOST_S:g} s: {_reason(error)}") from error
        time.sleep(POLL_S)


def status_of(client: Any, job: str) -> str:
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.

    Raises:
        ValueError: no such job.
    """
    try:
        return str(client.get_job_status(job))
    except RuntimeError as error:
        raise ValueError(f"no job {job!r}: {_reason(error)}") from error


def failure_of(client: Any, job: str) -> str:
    """Why a job failed, in one line, as far as Ray knows."""
    lines = [line.strip() for line in (client.get_job_info(job).message or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def stop(client: Any, job: str) -> None:
    """Asks a job to stop. It ends as on Ctrl-C, and the same command continues.

    Raises:
        ValueError: no such job.
    """
    status_of(client, job)
    client.stop_job(job)


def listed(client: Any) -> list[tuple[str, str, str]]:
    """All jobs that were submitted, newest first: id, status and command."""
    jobs = [job for job in client.list_jobs() if job.submission_id]
    jobs.sort(key=lambda job: job.start_time or 0, reverse=True)
    return [(job.submission_id, str(job.status), (job.metadata or {}).get("command", job.entrypoint)) for job in jobs]


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
