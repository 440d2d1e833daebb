"""Programs that tests start: a user's scripts, and ranks on two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
EXAMPLES = REPO / "examples"
SECONDS = 200  # for any of them


def environment(**more: str) -> dict[str, str]:
    """Return this environment, with one thread for a model too small for more."""
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def run_script(cwd: Path, script, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, in a folder that it keeps its plans in."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment(LANCE_LIGHTNING_CACHE_DIR=str(cwd / "cache")),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# -- ranks -----------------------------------------------------------------------------

DDP_APP = APPS / "ddp_app.py"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def of_rank(**more: str) -> dict[str, str]:
    """Return the environment of a rank, which finds the helpers of the tests."""
    paths = filter(None, [str(REPO), os.environ.get("PYTHONPATH")])
    path = os.pathsep.join(paths)
    return environment(PYTHONWARNINGS="ignore", PYTHONPATH=path, **more)


def run_ranks(
    uri: str, out: Path, *options: str, launcher: tuple[str, ...] = ()
) -> list:
    """Run the app to its end and return what each rank wrote."""
    done = _run_app(uri, out, *options, launcher=launcher)
    assert done.returncode == 0, done.stderr[-4000:]
    return written(out)


def fail_ranks(uri: str, out: Path, *options: str) -> str:
    """Run the app, which must stop by itself, and return what it printed."""
    done = _run_app(uri, out, *options)
    assert done.returncode != 0
    return done.stderr


def _run_app(
    uri: str, out: Path, *options: str, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, *launcher, str(DDP_APP), "--uri", uri, "--out", str(out)]
    return subprocess.run(
        [*command, *options],
        env=of_rank(MASTER_PORT=str(free_port())),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def written(out: Path) -> list:
    """Return what each rank wrote."""
    return [json.loads(path.read_text()) for path in sorted(out.glob("rank-*.json"))]
