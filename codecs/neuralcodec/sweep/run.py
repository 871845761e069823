"""Execution of a plan: jobs in parallel processes, rows into the store as they complete.

Workers are those of a `concurrent.futures` executor, so that the executor of a cluster can replace
the local processes.
"""

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from neuralcodec.core.files import expanded, write_whole
from neuralcodec.sweep.plan import Fit, Job, Key, Plan, Setup
from neuralcodec.sweep.store import Row, Store
from neuralcodec.sweep.work import (
    COLUMNS,
    LAST_COLUMNS,
    failed_rows,
    run_fit,
    run_job,
)
from neuralcodec.weights.availability import why_unavailable

RECORD = "rows.sqlite"
RESULTS = "results.csv"


class WorkerDiedError(ChildProcessError):
    """Raised if a worker process ended without a result: it was killed, or ran out of memory."""

    def __init__(self) -> None:
        super().__init__("a worker process died; out of memory? Finished rows are kept")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        results: the table that was written to `results.csv`.
        new: number of rows computed by this run.
        kept: number of rows that existed before.
        failures: number of failed rows of the plan, by reason.
    """

    results: pd.DataFrame
    new: int
    kept: int
    failures: Counter[str]


def _start_worker() -> None:
    """Initialise a worker with one thread, so that results do not depend on the worker count."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()  # a killed parent cannot end its workers
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Defer Ctrl-C to the end of the context, and start child processes with SIGINT blocked.

    A terminal sends SIGINT to all processes of the group. Only the parent should handle it and end
    the others: a child that is still importing would print a traceback, and so would one whose
    parent was interrupted while starting it.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield  # only the main thread gets signals, and Windows has no mask to inherit
        return
    heard: list[int] = []
    # Children inherit the mask. In this process another thread may still receive the signal.
    handler = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if heard:
        raise KeyboardInterrupt


def _start_all(pool: Executor, count: int) -> None:
    with _interrupt_later():
        for _ in range(count):
            pool.submit(int)  # submitting a task starts a worker if none is idle


@contextmanager
def local_workers(count: int) -> Iterator[Executor]:
    """Start `count` worker processes, which end at once on an error or Ctrl-C.

    Raises:
        WorkerDiedError: if a worker ends prematurely.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        _start_all(pool, count)
        yield pool
    except BaseException as error:
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise WorkerDiedError from error
        raise
    pool.shutdown()


def _commit() -> str:
    """Return the git commit of this program, with the suffix "-dirty" if files were changed.

    It is "unknown" without git or outside a repository.
    """
    command = "git describe --always --dirty --abbrev=40".split()
    where = Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return "unknown"
    return found.stdout.strip() or "unknown"


def describe(plan: Plan) -> dict[str, Any]:
    """Return the description of a run: settings of the sweep, versions, commit and machine."""
    return {
        "experiment": plan.experiment.model_dump(mode="json"),
        "commit": _commit(),
        "versions": {name: version(name) for name in ("neuralcodec", "torch", "numpy", "av")},
        "python": sys.version.split()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "device": "cpu",
    }


def lacking(plan: Plan) -> dict[Setup, str]:
    """Return the setups whose codec cannot run here, each with the reason and the remedy.

    Missing weights are downloaded if possible.
    """
    setups = {job.setup: None for job in plan.jobs}
    reasons = {setup: why_unavailable(setup.codec, dict(setup.settings)) for setup in setups}
    return {setup: reason for setup, reason in reasons.items() if reason is not None}


def _hopeless(plan: Plan, reasons: Mapping[Setup, str]) -> list[tuple[Key, Row]]:
    """Return the failed rows of the jobs whose codec cannot run here."""
    return [
        row
        for job in plan.jobs
        if job.setup in reasons
        for row in failed_rows(job, reasons[job.setup])
    ]


def _execute(plan: Plan, store: Store, workers: Executor, fits: Path, progress: bool) -> int:
    """Run all jobs, each after its fit; return the number of rows computed."""
    waiting: dict[Fit, list[Job]] = defaultdict(list)
    tasks: dict[Future[Any], Fit | Job] = {}
    for job in plan.jobs:
        if job.setup.fit is not None:
            waiting[job.setup.fit].append(job)
    # The longest first, since otherwise one of them would run alone at the end.
    for fit in sorted(waiting, key=lambda fit: -fit.codebook_size * fit.num_codebooks):
        tasks[workers.submit(run_fit, fit, fits)] = fit
    for job in plan.jobs:
        if job.setup.fit is None:
            tasks[workers.submit(run_job, job, fits)] = job
    made = 0
    with tqdm(total=len(plan.keys), unit="row", disable=not progress) as bar:
        while tasks:
            finished, _ = wait(tasks, return_when=FIRST_COMPLETED)
            # Finished rows are stored before the error of another task ends the run.
            for future in sorted(finished, key=lambda done: done.exception() is not None):
                task, result = tasks.pop(future), future.result()
                if isinstance(task, Job):
                    rows = result
                elif result is None:
                    tasks |= {workers.submit(run_job, job, fits): job for job in waiting[task]}
                    continue
                else:
                    rows = [row for job in waiting[task] for row in failed_rows(job, result)]
                store.add(rows)
                made += len(rows)
                bar.update(len(rows))
    return made


def run(
    plan: Plan,
    out: Path,
    *,
    workers: int | None = None,
    retry: bool = False,
    progress: bool = False,
    unable: Mapping[Setup, str] | None = None,
) -> Outcome:
    """Run the remaining rows of a plan and write `results.csv`.

    Rows that `out` already contains are kept and not computed again, so that the same call
    continues a run that was interrupted in any way.

    Args:
        plan: result of `neuralcodec.sweep.plan.make`.
        out: the sweep's folder, made if it does not exist; a leading `~` is the home folder.
        workers: number of processes; default one per core.
        retry: whether to make rows again that failed before.
        progress: whether to show a progress bar.
        unable: result of `lacking` for the plan; None to compute it.

    Raises:
        OSError: if a file cannot be written, for example because the disk is full; `StoreError` if
            it is the record. Rows written before are safe.
        WorkerDiedError: if a worker process was killed; rows written before are safe.
        KeyboardInterrupt: on Ctrl-C; rows written before are safe.
        ValueError: if `workers` is below 1.
    """
    count = (os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise ValueError(f"workers must be at least 1, got {count}")
    out = expanded(out)
    fits = out / "cache"
    fits.mkdir(parents=True, exist_ok=True)
    with Store(out / RECORD) as store:
        left = plan.without(store.done(failed=not retry))
        made = 0
        if left.jobs:
            store.begin(datetime.now(UTC).isoformat(timespec="seconds"), describe(plan))
            rows = _hopeless(left, lacking(left) if unable is None else unable)
            store.add(rows)
            made = len(rows)
            left = left.without({key for key, _ in rows})
        if left.jobs:
            with local_workers(min(count, len(left.jobs))) as pool:
                made += _execute(left, store, pool, fits, progress)
        columns: Sequence[str] = [*COLUMNS, *plan.experiment.base.metrics, *LAST_COLUMNS]
        results = store.table(plan.keys, columns)
    results["label"] = results["point"].map(plan.labels)
    write_whole(out / RESULTS, results.to_csv(index=False).encode())
    failed = results[results["status"] != "ok"]
    return Outcome(results, made, len(results) - made, Counter(failed["reason"]))
