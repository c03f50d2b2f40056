"""Calls of TensorRT are checked against its bindings: mypy reads the stub, and the stub is what the bindings have."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorrt_rtx

from runtime.settings import ROOT

STUB = ROOT / "typings" / "tensorrt_rtx.pyi"


def _methods() -> list[tuple[str, str, list[str]]]:
    """Class, attribute and parameters of all that the stub declares; an attribute without parameters has none."""
    found: list[tuple[str, str, list[str]]] = []
    for node in ast.parse(STUB.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found += [(node.name, *declared) for declared in _declared(node)]
    return found


def _declared(owner: ast.ClassDef) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for node in owner.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, [argument.arg for argument in node.args.args[1:]]))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [(target.id, []) for target in targets if isinstance(target, ast.Name)]
    return found


def test_the_stub_declares_what_the_bindings_have() -> None:
    declared = _methods()
    assert len(declared) > 80
    missing = [f"{owner}.{name}" for owner, name, _ in declared if not hasattr(getattr(tensorrt_rtx, owner), name)]
    assert missing == []


def test_the_parameters_are_those_of_the_bindings() -> None:
    """pybind11 writes the signatures into the documentation."""
    for owner, name, parameters in _methods():
        text = getattr(getattr(tensorrt_rtx, owner), name).__doc__ or ""
        for parameter in parameters:
            assert f"{parameter}: " in text, f"{owner}.{name}: {parameter}"


_CODE = """
from runtime.engines.tensorrt import flavour
from runtime.engines.tensorrt.flavour import trt

def refit(refitter: trt.Refitter, stream: int) -> bool:
    weights = flavour.trt.Weights(trt.DataType.HALF, 0, 4)
    {call}
    return refitter.refit_cuda_engine_async(stream)
"""
_CORRECT = "refitter.set_named_weights('w', weights, trt.TensorLocation.DEVICE)"


@pytest.mark.verify
def test_a_misspelt_call_fails_the_type_check(tmp_path: Path) -> None:
    errors = {}
    for number, call in enumerate(
        (
            _CORRECT,
            _CORRECT.replace("set_named_weights", "set_named_weight"),
            _CORRECT.replace("DEVICE", "DEVISE"),
            _CORRECT.replace("'w', weights", "weights, 'w'"),
        )
    ):
        path = tmp_path / f"case{number}.py"
        path.write_text(_CODE.format(call=call))
        command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(path)]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280)
        errors[number] = [line.rpartition("[")[2] for line in done.stdout.splitlines() if "error:" in line]
    assert errors == {0: [], 1: ["attr-defined]"], 2: ["attr-defined]"], 3: ["arg-type]", "arg-type]"]}
