"""A late module's code runs at its first use, and not at its import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from runtime.triton.late_module import LateFinder

_CODE = {
    "__init__.py": "import sys; sys.ran.append('package'); from .inner import value; made = 1",
    "inner.py": "import sys; sys.ran.append('inner'); value = 2",
    "replaced.py": (
        "import sys, types; sys.ran.append('replaced'); new = types.ModuleType(__name__); new.value = 3; "
        "sys.modules[__name__] = new"
    ),
}


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The code of `late_example` and its submodules that has run. All but `inner` are late."""
    folder = tmp_path / "late_example"
    folder.mkdir()
    for name, code in _CODE.items():
        (folder / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("late_example", "late_example.replaced", "late_example_missing")
    monkeypatch.setattr(sys, "meta_path", [LateFinder(names), *sys.meta_path])
    ran: list[str] = []
    monkeypatch.setattr(sys, "ran", ran, raising=False)
    yield ran
    for name in [name for name in sys.modules if name.startswith("late_example")]:
        del sys.modules[name]


def test_an_import_runs_nothing(ran: list[str]) -> None:
    import_module("late_example")
    import_module("late_example.replaced")
    assert ran == []


def test_a_submodule_is_imported_without_its_package(ran: list[str]) -> None:
    assert import_module("late_example.inner").value == 2
    assert import_module("late_example").inner.value == 2
    assert ran == ["inner"]


def test_an_unknown_name_runs_the_code_once(ran: list[str]) -> None:
    package = import_module("late_example")
    assert (package.made, package.value, package.made) == (1, 2, 1)
    assert ran == ["package", "inner"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = package.nothing


def test_the_code_may_replace_its_module(ran: list[str]) -> None:
    assert import_module("late_example.replaced").value == 3
    assert sys.modules["late_example.replaced"].value == 3
    assert ran == ["replaced"]


def test_what_python_asks_of_each_module_runs_nothing(ran: list[str]) -> None:
    package = import_module("late_example")
    assert not hasattr(package, "__wrapped__")
    assert package.__file__ is not None and package.__file__.endswith("__init__.py")
    assert ran == []


def test_a_missing_module_is_missing(ran: list[str]) -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("late_example_missing")
