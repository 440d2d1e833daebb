"""Runs measurements in processes of their own, in turn, round after round."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.child import MARK
from benchmarks.install import MOSAICML, ROOT

DATA = ROOT / "benchmarks" / "data"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement.

    Args:
        key: What tells it from the others.
        module: The module whose ``run`` makes it.
        arguments: What ``run`` is called with.
        apart: Whether it runs in MosaicML's environment.
        rounds: The most rounds it is run in; None is all.
    """

    key: str
    module: str
    arguments: Mapping[str, Any]
    apart: bool = False
    rounds: int | None = None


@dataclass(slots=True)
class Bench:
    """How measurements are run.

    Args:
        threads: Threads that torch and BLAS may use.
        cpus: Processors that every measurement is kept to; 0 is all.
        timeout: Seconds after which a measurement is stopped.
    """

    threads: int
    cpus: int
    timeout: int
    started: float = field(default_factory=time.monotonic)

    def once(self, job: Job) -> dict[str, Any]:
        """Run a measurement; what went wrong comes back as ``error``."""
        python = MOSAICML / "bin" / "python" if job.apart else Path(sys.executable)
        if not python.exists():
            return {"missing": "its environment (benchmarks/install.py makes it)"}
        arguments = json.dumps(dict(job.arguments))
        process = subprocess.Popen(
            [python, "-m", "benchmarks.child", job.module, arguments],
            cwd=ROOT,
            env=self._environment(job.arguments.get("threads")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=self._keep_to_cpus,
        )
        try:
            out, err = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            out, err = "", f"not done after {self.timeout} s"
        finally:
            _end_group(process)
        return _result(out, err, process.returncode)

    def rounds(self, jobs: Iterable[Job], count: int) -> dict[str, list[dict]]:
        """Run all jobs ``count`` times, one after the other in every round.

        What drifts on the machine then meets all of them alike. One that fails is
        not run again.
        """
        jobs = list(jobs)
        results: dict[str, list[dict]] = {job.key: [] for job in jobs}
        for number in range(count):
            for job in jobs:
                so_far = results[job.key]
                over = number >= (count if job.rounds is None else job.rounds)
                if over or (so_far and "value" not in so_far[-1]):
                    continue
                load = os.getloadavg()[0]
                result = {**self.once(job), "load": round(load, 2)}
                so_far.append(result)
                self._say(number, job, result)
        return results

    def _say(self, number: int, job: Job, result: Mapping[str, Any]) -> None:
        if "value" in result:
            value = result["value"]
            said = f"{value:,.0f}" if value > 100 else f"{value:.3g}"
        else:
            said = "; ".join(
                f"{k}: {result[k]}" for k in ("missing", "error", "says") if k in result
            )
        seconds = time.monotonic() - self.started
        print(f"{seconds:6.0f} s  round {number + 1}  {job.key:48} {said}", flush=True)

    def _environment(self, threads: int | None) -> dict[str, str]:
        count = str(threads or self.threads or os.cpu_count())
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(DATA / "huggingface")}
        quiet = {"PYTHONWARNINGS": "ignore", "TOKENIZERS_PARALLELISM": "false"}
        return {**os.environ, **dict.fromkeys(THREADS, count), **offline, **quiet}

    def _keep_to_cpus(self) -> None:
        if self.cpus:
            own = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, own[: self.cpus])


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what a measurement left running: workers, say."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _result(out: str, err: str, code: int) -> dict[str, Any]:
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            return json.loads(line[len(MARK) :])
    lines = [line for line in err.splitlines() if line.strip()]
    return {"error": lines[-1][-200:] if lines else f"exit status {code}"}


def values(results: Iterable[Mapping[str, Any]], name: str = "value") -> list[float]:
    """Return what the rounds measured."""
    return [result[name] for result in results if result.get(name) is not None]


def median(results: Iterable[Mapping[str, Any]], name: str = "value") -> float | None:
    """Return the median of the rounds, or None where all failed."""
    found = values(results, name)
    return statistics.median(found) if found else None


def ratio(
    results: list[dict[str, Any]], base: list[dict[str, Any]]
) -> tuple[float, float, float] | None:
    """Return median, least and greatest ratio of what one round measured of both."""
    pairs = zip(results, base, strict=False)
    found = [a["value"] / b["value"] for a, b in pairs if "value" in a and "value" in b]
    return (statistics.median(found), min(found), max(found)) if found else None
