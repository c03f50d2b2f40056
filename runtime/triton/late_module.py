"""Modules whose code runs late: when a name is read that their submodules do not have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class LateFinder(MetaPathFinder):
    """Finds the modules of these names, and makes them late. It belongs at the beginning of sys.meta_path."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in self._names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)
        return spec


class _LateLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _LateModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """The module's own code runs later."""


class _LateModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        """Called when the module lacks the name: a submodule, the package's version, or a name that its code makes."""
        if name == "__version__" and "." not in self.__name__:
            return metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        path = self.__dict__.get("__path__")
        if path is not None and PathFinder.find_spec(f"{self.__name__}.{name}", path) is not None:
            return import_module(f"{self.__name__}.{name}")
        assert isinstance(self.__spec__, ModuleSpec) and isinstance(self.__spec__.loader, _LateLoader)
        self.__class__ = ModuleType  # type: ignore[assignment]  # an ordinary module from now on
        self.__spec__.loader.loader.exec_module(self)
        return getattr(sys.modules[self.__name__], name)  # the code may replace its module
