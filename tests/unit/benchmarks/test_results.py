"""A result names the exact commit that it was measured at."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import DirtyTree, describe_machine
from benchmarks.results import Figure, Outcome, is_measured, read_result, write_result

OUTCOME = Outcome([Figure("time", 1.0, "s")], {}, {})


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with code, a README and a result."""
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    for name in ("code.py", "README.md", "benchmarks/results/case.json"):
        (tmp_path / name).write_text("{}")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def machine(root: Path) -> dict[str, Any]:
    return describe_machine(root)


def test_files_that_the_benchmark_writes_do_not_make_the_tree_dirty(root: Path) -> None:
    (root / "README.md").write_text("new")
    write_result(root / "benchmarks" / "results", "case", "description", OUTCOME, machine(root))
    assert not machine(root)["commit"].endswith("+")


def test_a_result_of_a_dirty_tree_is_refused_unless_allowed(root: Path, tmp_path: Path) -> None:
    (root / "code.py").write_text("changed")
    with pytest.raises(DirtyTree, match="commit or stash"):
        write_result(tmp_path / "out", "case", "description", OUTCOME, machine(root))
    assert not (tmp_path / "out").exists()
    path = write_result(tmp_path / "out", "case", "description", OUTCOME, machine(root), allow_dirty=True)
    assert read_result(path)["machine"]["commit"].endswith("+")


def test_a_case_is_measured_only_at_its_own_commit_and_machine(root: Path) -> None:
    measured = machine(root)
    path = write_result(root / "out", "case", "description", OUTCOME, measured)
    assert is_measured(path, measured | {"date": "later", "load": 9.0})
    assert not is_measured(path, measured | {"commit": "another"})
    assert not is_measured(path, measured | {"cores": 1000})
    assert not is_measured(path.with_name("other.json"), measured)
