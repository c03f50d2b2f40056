"""Makes the start of a stage faster: its libraries import much that no stage uses.

Four stages import torch at once when a server starts, so most of the time of a start is spent in imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NamedTuple

from runtime.triton.late_module import LateFinder


class Lean(NamedTuple):
    """What a library imports and no stage uses.

    The import of a `hidden` package fails, as if it were not installed. The code of a `late` module runs at its first
    use; of a late package, submodules can be imported without that.
    """

    hidden: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


# torch.compile's compiler, torch.export, and the Python code of operators on the meta device. Networks are built there;
# the operators that this takes are written in C++.
TORCH = Lean(late=("torch._dynamo", "torch._meta_registrations", "torch.export"))
# diffusers imports each optional package that is installed.
DIFFUSERS = Lean(
    hidden=("accelerate", "peft", "transformers"),
    late=("diffusers.models.autoencoders", "diffusers.models.unets", "diffusers.models.transformers"),
)
# transformers reads the source of each of its hundreds of models, to list their names.
TRANSFORMERS = Lean(hidden=("accelerate", "peft"), late=("transformers", "transformers.models"))


@contextmanager
def lean_imports(*libraries: Lean) -> Iterator[None]:
    """Inside this context, the import of these libraries is lean.

    Afterwards the hidden packages can be imported; the libraries keep regarding them as absent.
    """
    hidden = [name for library in libraries for name in library.hidden if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None blocks an import
    late = tuple(name for library in libraries for name in library.late)
    finder = LateFinder(late)
    sys.meta_path.insert(0, finder)
    try:
        with _lean_torch() if TORCH in libraries else nullcontext():
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _lean_torch() -> Iterator[None]:
    import_module("torch._prims.rng_prims")  # torch.Generator needs it, and torch._meta_registrations would import it
    with _replaced(_TORCH_FUNCTIONS):
        yield


def _undecorated(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    return function if function is not None else lambda decorated: decorated


# Decorators for torch.compile's compiler would import it. Libraries that find torch.distributed import much of it.
_TORCH_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch.compiler", "disable"): _undecorated,
    ("torch._dynamo", "allow_in_graph"): _undecorated,
    ("torch._dynamo", "assume_constant_result"): _undecorated,
    ("torch.distributed", "is_available"): lambda: False,
}


@contextmanager
def _replaced(functions: dict[tuple[str, str], Callable[..., Any]]) -> Iterator[None]:
    """Inside this context, these functions, (module, name), are replaced."""
    modules = [(import_module(module), name, function) for (module, name), function in functions.items()]
    originals = [vars(module).get(name) for module, name, _ in modules]  # None: a late module does not have it yet
    for module, name, function in modules:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), original in zip(modules, originals, strict=True):
            if original is None:
                delattr(module, name)
            else:
                setattr(module, name, original)
