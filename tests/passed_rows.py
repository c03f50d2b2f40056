"""A pytest plugin for `make verify`: a run goes on where the last one was interrupted.

`--passed-rows FOLDER` names a folder with a file for each state of the source, which holds the tests that have passed.
Those are not run again. A change of any file of the source starts anew. The processes of pytest-xdist leave them out;
the process that started them writes the file.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import pytest

PHASES = ("setup", "call", "teardown")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--passed-rows", type=Path, help="the folder that keeps what has passed")


def pytest_configure(config: pytest.Config) -> None:
    if folder := config.getoption("--passed-rows"):
        file = folder / f"{source_digest(config.rootpath)[:16]}.txt"
        config.pluginmanager.register(PassedRows(file, writes=not hasattr(config, "workerinput")))


def source_digest(root: Path) -> str:
    """Of the names and contents of all files that git tracks or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
    digest = sha256()
    for name in sorted({name for name in names if name}):
        path = root / name
        if path.is_file():  # not deleted, and no link to nothing
            digest.update(f"{name}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


class PassedRows:
    """Leaves out the tests that `file` names, and adds to it those that pass."""

    def __init__(self, file: Path, writes: bool = True) -> None:
        self._file, self._writes = file, writes
        self._passed = set(file.read_text("utf-8").splitlines()) if file.is_file() else set()
        self._phases: defaultdict[str, set[str]] = defaultdict(set)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if item.nodeid in self._passed]
        items[:] = [item for item in items if item.nodeid not in self._passed]
        config.hook.pytest_deselected(items=left_out)

    def pytest_report_header(self) -> str:
        return f"{len(self._passed)} passed before for this source, as {self._file} says"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self._writes:
            return
        if report.passed:
            self._phases[report.nodeid].add(report.when)
        if report.when == "teardown" and self._phases.pop(report.nodeid, set()) == set(PHASES):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._passed:
            session.exitstatus = pytest.ExitCode.OK
