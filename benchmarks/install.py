"""Make the environments of the benchmarks: one for most peers, one for MosaicML.

Peers are optional: one that cannot be installed is named here, and again in the
tables. MosaicML Streaming asks for a huggingface-hub that no longer goes with
`datasets`, so it lives apart.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = ROOT / ".venv-bench"
MOSAICML = ROOT / ".venv-bench-mosaicml"
CONSTRAINTS = ROOT / "benchmarks" / "constraints.txt"
PEERS = ("datasets", "litdata", "webdataset")


def make(folder: Path) -> Path:
    """Make an environment, or keep it, and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (folder / ".gitignore").write_text("*\n")
    return python


def install(python: Path, constraints: Sequence[Path], *what: str) -> bool:
    """Install packages and return whether that went well."""
    print("==> installing", *what, flush=True)
    command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    pinned = [part for file in constraints for part in ("-c", str(file))]
    return subprocess.run([*command, *pinned, *what], cwd=ROOT).returncode == 0


def drop_broken_torchvision(python: Path) -> None:
    """Take a torchvision away that was built for another torch.

    LitData and MosaicML pull it in, and torchmetrics imports it where it is. An
    index with only CPU builds of torch gives one that cannot be imported. Nothing
    here decodes an image.
    """
    found = subprocess.run([python, "-c", "import torchvision"], capture_output=True)
    if found.returncode == 0:
        return
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "torchvision"])


def main() -> int:
    """Make both environments; return 1 where not even our own package installs."""
    python = make(MAIN)
    pinned = (ROOT / "constraints.txt", CONSTRAINTS)
    if not install(python, pinned, "-e", ".[pandas,polars]", "matplotlib", "psutil"):
        return 1
    missing = [peer for peer in PEERS if not install(python, pinned, peer)]
    drop_broken_torchvision(python)
    python = make(MOSAICML)
    apart = (CONSTRAINTS.with_name("constraints-mosaicml.txt"),)
    if not install(python, apart, "torch", "mosaicml-streaming"):
        missing.append("mosaicml-streaming")
    drop_broken_torchvision(python)
    if missing:
        print("==> without", ", ".join(missing), "(see above)")
    (MAIN / ".ready").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
