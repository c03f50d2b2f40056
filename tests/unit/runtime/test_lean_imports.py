"""A stage's libraries work without what is hidden from them, or runs late."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from runtime.settings import ROOT
from runtime.triton.lean_imports import DIFFUSERS, TORCH, Lean, lean_imports

_CODE = """
import sys
from runtime.triton.lean_imports import DIFFUSERS, TORCH, TRANSFORMERS, lean_imports
with lean_imports(*{libraries}):
    from runtime.networks.build import import_network
    for kind in {kinds}:
        import_network(kind)
    {module}
import torch
torch.randn(2, generator=torch.Generator().manual_seed(0))
from runtime.networks.architecture import architecture_of
from runtime.networks.build import build
for kind in {kinds}:
    build(architecture_of(kind, {{}}))
unused = ("accelerate", "peft", "torch._inductor", "torch._decomp.decompositions", "torch.distributed.tensor", "sympy")
print(*(name for name in unused if name in sys.modules))
"""
# A stage: its libraries, its networks, and another module of it that uses its libraries.
_STAGES = {
    "diffusers": ("(TORCH, DIFFUSERS)", ("unet", "controlnet", "vae_encoder", "vae_decoder"), "schedulers.schedule"),
    "transformers": ("(TORCH, TRANSFORMERS)", ("text_encoder",), "prompts.prompt_tokenizer"),
}


@pytest.mark.parametrize("stage", _STAGES)
def test_the_networks_are_built_without_what_no_stage_uses(stage: str) -> None:
    libraries, kinds, module = _STAGES[stage]
    code = _CODE.format(libraries=libraries, kinds=kinds, module=f"import runtime.{module}")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr[-2000:]


def test_a_hidden_package_cannot_be_imported_and_then_it_can() -> None:
    sys.modules.pop("this", None)
    with lean_imports(Lean(hidden=("this",))), pytest.raises(ModuleNotFoundError):
        import_module("this")
    assert import_module("this").d


def test_functions_of_torch_are_replaced_only_inside() -> None:
    import torch

    before = torch.compiler.disable, torch.distributed.is_available
    with lean_imports(TORCH):
        assert torch.compiler.disable(len) is len  # type: ignore[no-untyped-call]
        assert not torch.distributed.is_available()
    assert (torch.compiler.disable, torch.distributed.is_available) == before


def test_a_package_that_is_imported_already_stays() -> None:
    json = sys.modules["json"]
    with lean_imports(Lean(hidden=("json",)), DIFFUSERS):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json
