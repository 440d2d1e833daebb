"""Make the environments of the benchmarks: one for most peers, one for MosaicML.

Peers are optional: one that cannot be installed is named here, and again in the
tables. MosaicML Streaming asks for a huggingface-hub that no longer goes with
`datasets`, so it lives apart.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAIN = ROOT / ".venv-bench"
MOSAICML = ROOT / ".venv-bench-mosaicml"
CONSTRAINTS = ROOT / "benchmarks" / "constraints.txt"
PEERS = ("datasets", "litdata", "webdataset")


def make(folder: Path) -> Path:
    """Make an empty environment and return its Python."""
    venv.create(folder, with_pip=True, clear=True)
    (folder / ".gitignore").write_text("*\n")
    return folder / "bin" / "python"


def install(python: Path, *what: str) -> bool:
    """Install packages and return whether that went well."""
    print("==> installing", " ".join(each for each in what if each[0] != "-"))
    command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    return subprocess.run([*command, *what], cwd=ROOT).returncode == 0


def drop_broken_torchvision(python: Path) -> None:
    """Take a torchvision away that was built for another torch.

    LitData and MosaicML pull it in, and torchmetrics imports it where it is. An
    index with CPU builds of torch alone gives one that cannot be imported. Nothing
    here decodes an image.
    """
    if subprocess.run([python, "-c", "import torchvision"], capture_output=True):
        return
    subprocess.run([python, "-m", "pip", "uninstall", "-qq", "-y", "torchvision"])


def main() -> int:
    """Make both environments; return 1 where not even our own package installs."""
    python = make(MAIN)
    pinned = ("-c", "constraints.txt", "-c", str(CONSTRAINTS))
    ours = ("-e", ".[pandas,polars]", "matplotlib", "psutil")
    if not install(python, *pinned, *ours):
        return 1
    missing = [peer for peer in PEERS if not install(python, *pinned, peer)]
    drop_broken_torchvision(python)
    python = make(MOSAICML)
    apart = str(CONSTRAINTS.with_name("constraints-mosaicml.txt"))
    if not install(python, "-c", apart, "torch", "mosaicml-streaming"):
        missing.append("mosaicml-streaming")
    drop_broken_torchvision(python)
    if missing:
        print("==> without", ", ".join(missing), "(see above)")
    (MAIN / ".ready").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
