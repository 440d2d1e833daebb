"""Guarantees of the cache folder: complete or absent, built once, never overwritten."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import platformdirs
import pytest

from lance_lightning import cache_folder as cache
from lance_lightning.cache_folder import CACHE_DIR_VARIABLE, build_once, cache_dir
from lance_lightning.errors import ConfigError

SPAWN = multiprocessing.get_context("spawn")


def write_content(folder: Path) -> None:
    (folder / "part").mkdir()
    (folder / "part" / "data").write_text("content")


def build_slowly(target: Path, log: Path) -> None:
    def build(folder: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        write_content(folder)
        time.sleep(0.3)

    assert (build_once(target, build) / "part" / "data").read_text() == "content"


def build_for_ever(target: Path, started: Path) -> None:
    def build(folder: Path) -> None:
        write_content(folder)
        started.touch()
        time.sleep(60)

    build_once(target, build)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def test_cache_dir_takes_argument_then_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "environment"))
    assert cache_dir(tmp_path / "argument") == tmp_path / "argument"
    assert cache_dir(None) == tmp_path / "environment"
    assert not (tmp_path / "environment").exists()


def test_cache_dir_defaults_to_the_platforms_cache_folder(monkeypatch):
    monkeypatch.delenv(CACHE_DIR_VARIABLE, raising=False)
    assert cache_dir() == platformdirs.user_cache_path("lance_lightning")


def test_cache_dir_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir("here") == tmp_path / "here"
    assert cache_dir("~/there") == tmp_path / "home" / "there"


@pytest.mark.parametrize("wrong", ["", 3, "s3://bucket/cache"])
def test_cache_dir_refuses_what_is_no_folder_here(wrong):
    with pytest.raises(ConfigError, match="cache_dir must be"):
        cache_dir(wrong)


def test_target_is_built_once_and_never_overwritten(tmp_path):
    target = tmp_path / "deep" / "target"
    assert build_once(target, write_content) == target
    assert (target / "part" / "data").read_text() == "content"

    def never(folder: Path) -> None:
        raise AssertionError("built again")

    assert build_once(target, never) == target
    assert sorted(path.name for path in target.parent.iterdir()) == [
        ".target.lock",
        "target",
    ]


def test_target_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "target"

    def build(folder: Path) -> None:
        write_content(folder)
        assert not target.exists()

    build_once(target, build)


def test_failed_builder_leaves_nothing_and_the_next_one_builds(tmp_path):
    target = tmp_path / "target"

    def fail(folder: Path) -> None:
        write_content(folder)
        raise PermissionError(errno.EACCES, "the table's, not the cache's")

    with pytest.raises(PermissionError, match="the table's"):
        build_once(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".target.lock"]
    build_once(target, write_content)
    assert (target / "part" / "data").read_text() == "content"


def test_racing_processes_build_once(tmp_path):
    target, log = tmp_path / "target", tmp_path / "log"
    racers = [
        SPAWN.Process(target=build_slowly, args=(target, log), daemon=True)
        for _ in range(3)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert len(log.read_text().split()) == 1


def test_killed_builder_leaves_nothing_that_harms(tmp_path):
    target, started = tmp_path / "target", tmp_path / "started"
    builder = SPAWN.Process(target=build_for_ever, args=(target, started), daemon=True)
    builder.start()
    wait_for(started)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join(60)
    assert builder.exitcode == -signal.SIGKILL
    assert any("building" in path.name for path in tmp_path.iterdir())

    build_once(target, write_content)
    assert (target / "part" / "data").read_text() == "content"
    assert not any("building" in path.name for path in tmp_path.iterdir())


def test_process_that_waits_goes_on_when_the_builder_is_killed(tmp_path):
    target, started, log = tmp_path / "target", tmp_path / "started", tmp_path / "log"
    builder = SPAWN.Process(target=build_for_ever, args=(target, started), daemon=True)
    builder.start()
    wait_for(started)
    waiter = SPAWN.Process(target=build_slowly, args=(target, log), daemon=True)
    waiter.start()
    time.sleep(0.5)
    os.kill(builder.pid, signal.SIGKILL)
    waiter.join(60)
    builder.join(60)
    assert waiter.exitcode == 0
    assert len(log.read_text().split()) == 1


def test_builder_that_comes_second_without_a_lock_keeps_the_first(tmp_path):
    target = tmp_path / "target"

    def overtaken(folder: Path) -> None:
        write_content(folder)
        target.mkdir()
        (target / "first").touch()

    build_once(target, overtaken)
    assert [path.name for path in target.iterdir()] == ["first"]
    assert not any("building" in path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("below", [".", "deep/er"])
def test_unusable_folder_names_the_remedy(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file.*cache_dir=\.\.\..*CACHE_DIR"):
        build_once(tmp_path / "file" / below / "target", write_content)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_read_only_folder_names_the_remedy_but_still_serves(tmp_path):
    build_once(tmp_path / "there", write_content)
    tmp_path.chmod(0o500)
    try:
        assert build_once(tmp_path / "there", write_content).is_dir()
        with pytest.raises(ConfigError, match=r"cache_dir=\.\.\."):
            build_once(tmp_path / "target", write_content)
    finally:
        tmp_path.chmod(0o700)


def test_full_disk_names_the_remedy(tmp_path):
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ConfigError, match=r"No space left.*cache_dir=\.\.\."):
        build_once(tmp_path / "target", fill)
    assert [path.name for path in tmp_path.iterdir()] == [".target.lock"]


def test_every_file_is_synced_before_the_rename(tmp_path, monkeypatch):
    synced = []
    real = cache._sync_file
    monkeypatch.setattr(cache, "_sync_file", lambda p: (synced.append(p), real(p)))
    build_once(tmp_path / "target", write_content)
    assert [path.name for path in synced] == ["data"]
