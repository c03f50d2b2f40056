"""mypy checks the calls of each TensorRT against the signatures of its bindings, and finds misspelt ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.tensorrt_stubs.__main__ import stub
from deploy.tensorrt_stubs.bindings import BINDINGS
from deploy.tensorrt_stubs.reduce import used_by_stub
from runtime.settings import ROOT

RUN, BUILD = "runtime/engines/tensorrt", "export/tensorrt"


@pytest.mark.parametrize(
    "flavour",
    # `make verify` downloads the bindings of the others.
    [pytest.param(name, marks=pytest.mark.verify) if found.wheel else name for name, found in BINDINGS.items()],
)
def test_the_stub_has_the_signatures_of_the_bindings(flavour: str) -> None:
    text = BINDINGS[flavour].stub.read_text("utf-8")
    assert text == stub(BINDINGS[flavour], used_by_stub(text)), "run `make stubs`"


class Mistake(NamedTuple):
    """What is wrong in a copy of a file, and the kind of error that mypy reports."""

    file: str
    right: str
    wrong: str
    error: str = "attr-defined"


MISTAKES = (
    Mistake(f"{RUN}/loaded_plan.py", "deserialize_cuda_engine(", "deserialise_cuda_engine("),
    Mistake(f"{RUN}/messages.py", "ILogger.INTERNAL_ERROR", "ILogger.INNER_ERROR"),
    Mistake(
        f"{RUN}/plan_context.py",
        "self._activations.data_ptr(), self._activations.nbytes)",
        "self._activations.data_ptr())",
        "call-arg",
    ),
    Mistake(
        f"{RUN}/plan_weights.py", "set_named_weights(name, weights,", "set_named_weights(weights,", "call-overload"
    ),
    Mistake(f"{BUILD}/build_plan.py", "BuilderFlag.STRIP_PLAN", "BuilderFlag.STRIP"),
    Mistake(f"{BUILD}/parse.py", "load_initializer(", "load_initialiser("),
    Mistake(f"{BUILD}/placeholders.py", ".add_constant(old.shape,", ".add_constant(name,", "arg-type"),
)
RTX_MISTAKES = (
    Mistake(f"{RUN}/rtx_kernels.py", "create_runtime_cache(", "create_kernel_cache("),
    Mistake(f"{BUILD}/rtx_targets.py", "num_compute_capabilities", "num_capabilities"),
)
# No mistake for TensorRT-RTX, which has the attribute.
_CONFIG = "config = parsed.builder.create_builder_config()"
NOT_IN_TENSORRT = Mistake(f"{BUILD}/build_plan.py", _CONFIG, f"{_CONFIG}; config.num_compute_capabilities = 1")


def _check(flavour: str, *options: str) -> list[str]:
    """The errors of mypy."""
    command = [str(ROOT / "deploy" / "typecheck_tensorrt.sh"), flavour, *options]
    variables = os.environ | {"VENV": sys.prefix}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=280)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("flavour", BINDINGS)
def test_the_calls_fit_the_bindings(flavour: str) -> None:
    assert _check(flavour) == []


@pytest.mark.parametrize("flavour", BINDINGS)
def test_mistakes_fail_the_type_check(flavour: str, tmp_path: Path) -> None:
    """All in one run: one error for each mistake, in its line."""
    is_rtx = flavour == "tensorrt_rtx"
    copies: dict[str, str] = {}
    expected = set()
    for mistake in (*MISTAKES, NOT_IN_TENSORRT, *(RTX_MISTAKES if is_rtx else ())):
        source = copies.get(mistake.file) or (ROOT / mistake.file).read_text("utf-8")
        before, right, after = source.partition(mistake.right)
        assert right and right not in after, mistake
        copies[mistake.file] = before + mistake.wrong + after
        if not (is_rtx and mistake is NOT_IN_TENSORRT):
            line = before.count("\n") + 1
            expected.add((f"{mistake.file}:{line}", mistake.error))
    options = ["--cache-dir", str(tmp_path / "cache")]  # else mypy takes a copy for the file that it checked before
    for file, text in copies.items():
        copy = tmp_path / Path(file).name
        copy.write_text(text, "utf-8")
        options += ["--shadow-file", file, str(copy)]
    errors = [line for line in _check(flavour, *options) if " error: " in line]
    assert {(line.partition(": ")[0], line.rpartition("[")[2].rstrip("]")) for line in errors} == expected
