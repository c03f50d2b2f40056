"""The shapes of a component's tensors, from which its configuration is derived."""

from __future__ import annotations

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.checks import CheckpointError

_MOST = 100  # blocks or layers; published networks have at most 32


class ComponentShapes:
    """The shapes of a component. Its methods raise CheckpointError naming a tensor that is missing."""

    def __init__(self, component: Component) -> None:
        self._name, self._shapes = component.name, component.shapes

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def of(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise CheckpointError(f"its {self._name} is incomplete: {name} is missing")
        return self._shapes[name]

    def size(self, name: str, axis: int) -> int:
        """The size of a tensor along an axis."""
        shape = self.of(name)
        if len(shape) <= axis or not shape[axis]:
            raise CheckpointError(
                f"{self._name}: {name} has shape {list(shape)}; expected at least {axis + 1} axes and no empty one"
            )
        return shape[axis]

    def count(self, pattern: str) -> int:
        """The number of existing names among `pattern.format(0)`, `pattern.format(1)`, ... up to the first gap."""
        return next((index for index in range(_MOST) if pattern.format(index) not in self), _MOST)

    def end(self, prefix: str) -> int:
        """One more than the highest number that follows the prefix in a name; 0: no name has the prefix.

        Unlike `count`, it does not end at a missing tensor, which the engine then names.
        """
        rests = (name.removeprefix(prefix) for name in self._shapes if name.startswith(prefix))
        return max((int(rest.partition(".")[0]) + 1 for rest in rests), default=0)
