"""The saved state of a training run, in a folder that git ignores. A later session resumes from it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from deploy.demo_model.paths import TRAINING

M = TypeVar("M", bound=torch.nn.Module)
EMA_WARM_UP = 10  # early averages span few steps, so that the initial weights lose their influence soon


@dataclass
class TrainingState(Generic[M]):
    """A `module` under training, the running `average` of its weights, and the work done so far."""

    path: Path
    module: M
    average: M
    optimizer: torch.optim.Optimizer
    steps: int = 0
    seconds: float = 0.0
    samples: int = 0

    def update_average(self, decay: float) -> None:
        """Move the average towards the weights by 1 - `decay`, by more in the first steps."""
        share = 1 - min(decay, (1 + self.steps) / (EMA_WARM_UP + self.steps))
        pairs = zip(self.average.parameters(), self.module.parameters(), strict=True)
        means, now = zip(*((mean, now) for mean, now in pairs if now.requires_grad), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_(means, now, share)

    def save(self) -> None:
        """Write the state atomically: after a kill at any moment, the file is the old or the new one."""
        part = self.path.with_suffix(".part")
        content = {
            "module": self._trained_tensors(self.module),
            "average": self._trained_tensors(self.average),
            "optimizer": self.optimizer.state_dict(),
            "done": (self.steps, self.seconds, self.samples),
        }
        torch.save(content, part)
        part.replace(self.path)

    def _trained_tensors(self, module: M) -> dict[str, torch.Tensor]:
        """The state dict of `module` without frozen parameters, so that a LoRA can resume on a newer base."""
        frozen = {name for name, parameter in self.module.named_parameters() if not parameter.requires_grad}
        return {name: tensor for name, tensor in module.state_dict().items() if name not in frozen}


def adamw(module: torch.nn.Module, weight_decay: float = 0.01) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters of `module`."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)


def resume(name: str, module: M, optimizer: torch.optim.Optimizer | None = None) -> TrainingState[M]:
    """The state of the run `name` on `module`: the saved one, else a new one. The default `optimizer` is `adamw`."""
    TRAINING.mkdir(parents=True, exist_ok=True)
    optimizer = optimizer or adamw(module)
    average = copy.deepcopy(module).requires_grad_(False)
    state = TrainingState(TRAINING / f"{name}.pt", module, average, optimizer)
    if state.path.exists():
        content = torch.load(state.path, map_location=next(module.parameters()).device, weights_only=True)
        module.load_state_dict(content["module"], strict=False)
        average.load_state_dict(content["average"], strict=False)
        optimizer.load_state_dict(content["optimizer"])
        state.steps, state.seconds, state.samples = content["done"]
    return state


def load_average(name: str, module: torch.nn.Module) -> bool:
    """Load the averaged weights of the run `name` into `module`. Returns False if there is no saved run."""
    path = TRAINING / f"{name}.pt"
    if not path.exists():
        return False
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(content["average"], strict=False)
    steps, seconds, samples = content["done"]
    print(f"{name}: trained for {seconds / 60:.0f} min, {steps} steps, {samples} samples")
    return True


def remove_run(name: str) -> None:
    """Delete the saved state of the run `name`, if it exists."""
    (TRAINING / f"{name}.pt").unlink(missing_ok=True)
