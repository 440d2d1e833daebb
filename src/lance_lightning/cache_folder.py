"""The cache folder: built aside, synced, renamed; one builder at a time."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from lance_lightning.errors import ConfigError

CACHE_DIR_VARIABLE = "LANCE_LIGHTNING_CACHE_DIR"

_log = logging.getLogger(__name__)
_FULL = frozenset({errno.EDQUOT, errno.ENOSPC})
_UNUSABLE = _FULL | {
    errno.EACCES,
    errno.EEXIST,  # a file where the folder should be
    errno.ENOLCK,
    errno.ENOSYS,  # a network file system without locks
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def cache_dir(configured: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute cache folder; it need not exist yet.

    The argument wins over the environment variable
    ``LANCE_LIGHTNING_CACHE_DIR``, and that over the platform's cache folder.

    Raises:
        ConfigError: It is not a path on a file system of this machine.
    """
    chosen = configured
    if chosen is None:
        chosen = os.environ.get(CACHE_DIR_VARIABLE) or None
    if chosen is None:
        return Path(platformdirs.user_cache_path("lance_lightning"))
    if not isinstance(chosen, (str, os.PathLike)) or not os.fspath(chosen):
        raise ConfigError(f"cache_dir must be a path, got {chosen!r}")
    path = os.fspath(chosen)
    if "://" in path:
        raise ConfigError(
            "cache_dir must be a folder on this machine, since plans are "
            f"memory-mapped, got {path!r}"
        )
    return Path(path).expanduser().absolute()


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Return the folder ``target``, built by whichever process comes first.

    ``build`` fills an empty folder beside the target, which is synced and renamed
    when it is done. So a target that exists is complete, and it is never
    overwritten. Other processes wait for the file lock and then find the target.

    Args:
        target: Where the folder is to be; its name stands for its content.
        build: Fills the folder that it is given.

    Raises:
        ConfigError: The cache folder cannot be written, or has no locks.
    """
    if target.is_dir():
        return target
    with _usable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if not target.is_dir():
            _build_aside(target, build)
    return target


def _build_aside(target: Path, build: Callable[[Path], None]) -> None:
    aside = target.with_name(f"{_prefix(target)}{uuid.uuid4().hex}")
    with _usable(target.parent):
        _remove_leftovers(target)
        aside.mkdir()
    try:
        # Of what the builder raises, only a full disk is the folder's fault.
        with _usable(target.parent, _FULL):
            build(aside)
        with _usable(target.parent):
            _sync(aside)
            _rename(aside, target)
            _sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _rename(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        # Locks can be missing across the machines of a network file system: then
        # another builder of the same content may have been first, and its stays.
        if not target.is_dir():
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.name}.building-"


def _remove_leftovers(target: Path) -> None:
    """Remove what killed builders left; the lock says that none is alive."""
    for path in target.parent.iterdir():
        if path.name.startswith(_prefix(target)):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    # The lock file stays: removing it would let two processes hold two locks.
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _usable(target.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("waiting for another process that builds %s", target)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _usable(folder: Path, errors: frozenset[int] = _UNUSABLE) -> Iterator[None]:
    """Turn what an unusable folder raises into an error that names the remedy."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        # Where locks are missing, filelock raises a NotImplementedError.
        if isinstance(error, OSError) and error.errno not in errors:
            raise
        raise ConfigError(
            f"the cache folder {str(folder)!r} cannot be used ({error}), so nothing "
            "can be built in it; choose a writable folder on a local disk with "
            f"cache_dir=... or the environment variable {CACHE_DIR_VARIABLE}"
        ) from error


def _sync(folder: Path) -> None:
    """Bring every file and folder under ``folder`` to the disk, itself last."""
    for path, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync_file(Path(path, name))
        _sync_folder(Path(path))


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # A rename is on the disk only when the folder that holds the name is.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
