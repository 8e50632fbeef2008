"""A disk, a quota or an output that takes no more is one sentence, and what can go on does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.cli.command import demo
from vendomini.records import Results


class TestPlacesThatFail:
    @pytest.fixture
    def small_disk(self, tmp_path):
        """A file system of 200 KiB, and how to make it larger."""
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("only root may mount a small file system")
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        subprocess.run(["umount", place], check=True)

    def test_a_full_disk_fails_the_runs_that_it_struck_and_they_go_on_when_there_is_room(self, small_disk, tmp_path):
        place, make_room = small_disk
        done = demo(place)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.count("no space left for") == 1
        assert "runs failed; the same command tries again: vendomini run --config" in done.stdout
        make_room()
        assert demo(place).returncode == 0
        demo(tmp_path / "undisturbed")
        logs = [{file.parent.name: file.read_bytes() for file in folder.glob("runs/*/steps.jsonl")}
                for folder in (place, tmp_path / "undisturbed")]  # fmt: skip
        assert len(logs[0]) == 12
        assert logs[0] == logs[1]

    def test_a_quota_that_is_noticed_when_a_log_is_closed(self, tmp_path):
        """As NFS does it. The library stands between the program and libc, and fails one run's log."""
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("there is no gcc")
        (tmp_path / "close.c").write_text(FAILING_CLOSE)
        library = tmp_path / "close.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "close.c", "-ldl"], check=True)
        (failing, *_) = json.loads(demo(tmp_path, "--dry-run", "--json").stdout)["run_ids"]
        done = demo(tmp_path, LD_PRELOAD=str(library), FAILING=f"{failing}/steps.jsonl")
        assert (done.returncode, done.stderr) == (1, "")
        assert f"{failing} failed: no space left for" in done.stdout
        assert demo(tmp_path).returncode == 0

    def test_a_file_in_the_place_of_a_run_folder(self, tmp_path):
        first, *_ = json.loads(demo(tmp_path, "--dry-run", "--json").stdout)["run_ids"]
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / first).write_text("mine")
        done = demo(tmp_path)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"there is a file where {tmp_path}/runs/{first} should be a folder: move it away" in done.stdout
        assert sum(Results(tmp_path).summary(name) is not None for name in Results(tmp_path).run_ids()) == 11
        assert (tmp_path / "runs" / first).read_text() == "mine"

    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&-"])
    def test_a_closed_output_stops_nothing(self, tmp_path, closed):
        small = f"-c configs/demo.yaml --limit 2 -o simulation.max_steps=5 -r {tmp_path}"
        for command in (f"run {small}", f"run {small} --json", f"status --results {tmp_path}"):
            line = f"exec {sys.executable} -m vendomini {command} {closed}"
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            assert (done.returncode, done.stdout, "rror" in done.stderr) == (0, "", False)
        assert len(list(tmp_path.glob("runs/*/summary.json"))) == 2

    def test_a_full_output_is_one_sentence_after_the_work(self, tmp_path):
        run = ("run", "-c", "configs/demo.yaml", "--limit", "2", "-o", "simulation.max_steps=5", "-r", str(tmp_path))
        for command in (run, ("status", "--results", str(tmp_path)), ("estimate", "phase1", "--json")):
            with open("/dev/full", "w") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "vendomini", *command], stdout=full, stderr=subprocess.PIPE, text=True
                )
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert done.stderr == "error: can't write the output (No space left on device): send it somewhere else\n"
        assert len(list(tmp_path.glob("runs/*/summary.json"))) == 2

    def test_an_output_in_latin_1(self, tmp_path):
        command = [sys.executable, "-m", "vendomini", "run", "-c", "configs/demo.yaml", "--limit", "2", "-r", tmp_path]
        short, environ = ["-o", "simulation.max_steps=5"], os.environ | {"PYTHONIOENCODING": "latin-1"}
        done = subprocess.run([*command, *short], capture_output=True, env=environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"2 to do ? " in done.stdout


FAILING_CLOSE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int close(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  char link[64], path[PATH_MAX + 1] = "";
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX);
  int result = real(fd);
  if (length > 0 && getenv("FAILING") && strstr(path, getenv("FAILING"))) { errno = EDQUOT; return -1; }
  return result;
}
"""
