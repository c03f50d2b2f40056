"""Reduces the stub of a binding to what this repository calls, and corrects what pybind11 does not say."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import NamedTuple

from runtime.settings import ROOT

_CALLERS = ("runtime/engines/tensorrt", "export/tensorrt", "tests/unit/export/tensorrt")
_MODULES = ("trt", "tensorrt_rtx")
_ALWAYS = {"__init__", "__int__", "__iter__", "__len__", "__getitem__"}
_ENUMERATION = {"__members__", "__int__"}  # all but the values that a class of values needs
_NO_OBJECT = ("build_serialized_network", "deserialize_cuda_engine")  # give None when they fail
_BASES = {"Dims": "collections.abc.Sequence[int]", "IHostMemory": "typing_extensions.Buffer"}
_WEIGHTS = ("kernel", "bias", "weights")  # of a layer: an array if numpy has the dtype
# Where pybind11 did not know a class yet, it has no signature that Python can read.
_SIGNATURES = {
    "create_runtime_cache": "def create_runtime_cache(self) -> IRuntimeCache: ...",
    "set_runtime_cache": "def set_runtime_cache(self, cache: IRuntimeCache) -> bool: ...",
    "get_error": "def get_error(self, index: typing.SupportsInt) -> ParserError: ...",
}


class Used(NamedTuple):
    """What is to be in a stub: classes, and members of any class."""

    classes: set[str]
    members: set[str]


def used_by_callers() -> Used:
    files = [path for folder in _CALLERS for path in sorted((ROOT / folder).rglob("*.py"))]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    classes = {node.attr for node in attributes if _last_name(node.value) in _MODULES}
    return Used(classes, {node.attr for node in attributes} | set(_overridden(nodes)))


def used_by_stub(text: str) -> Used:
    """What a reduced stub has."""
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    return Used({node.name for node in classes}, {_name(member) for node in classes for member in node.body})


def reduce_stub(text: str, used: Used) -> str:
    """Classes that `used` names, and those that the signatures of their kept members name."""
    module = ast.parse("\n".join(_correct_line(line) for line in text.splitlines()))
    known = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    kept: dict[str, ast.ClassDef] = {}
    wanted = {name for name in used.classes if name in known}
    while wanted:
        name = wanted.pop()
        kept[name] = _reduce_class(known[name], used)
        wanted |= {found for found in _names(kept[name]) if found in known} - kept.keys()
    imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    classes = [kept[name] for name in known if name in kept]
    body = [*imports, ast.parse("import numpy.typing").body[0], ast.parse("__version__: str").body[0], *classes]
    return ast.unparse(ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))) + "\n"


def _correct_line(line: str) -> str:
    """pybind11 allows a default before a parameter that has none. Python does not, so there the default is removed."""
    try:
        ast.parse(line.strip())
    except SyntaxError:
        return line.replace(" = ...", "") if line.lstrip().startswith("def ") else line
    return line


def _reduce_class(node: ast.ClassDef, used: Used, outer: str = "") -> ast.ClassDef:
    is_enumeration = "__members__" in map(_name, node.body)
    found: list[ast.stmt] = []
    for member in node.body:
        name = _name(member)
        if isinstance(member, ast.ClassDef):
            found.append(_reduce_class(member, used, f"{node.name}."))
        elif isinstance(member, ast.FunctionDef) and name in (
            _ENUMERATION if is_enumeration else used.members | _ALWAYS
        ):
            found += _correct_function(member)
        elif isinstance(member, ast.AnnAssign) and name in used.members:
            found.append(_correct_attribute(member, name, outer + node.name))
    bases = [*node.bases, *map(_expression, [_BASES[node.name]] if node.name in _BASES else [])]
    return ast.ClassDef(node.name, bases, [], found or [ast.Expr(ast.Constant(...))], node.decorator_list)


def _correct_function(node: ast.FunctionDef) -> list[ast.stmt]:
    """A sequence is a shape too; a call may give no object. What has no signature is left out."""
    if node.args.vararg or any(argument.annotation is None for argument in node.args.args[1:]):
        return ast.parse(_SIGNATURES.get(node.name, "")).body
    for argument in node.args.args:
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Dims":
            argument.annotation = _expression(_BASES["Dims"])
    if node.name in _NO_OBJECT and node.returns is not None:
        node.returns = ast.BinOp(node.returns, ast.BitOr(), ast.Constant(None))
    return [node] if node.returns is not None else []


def _correct_attribute(node: ast.AnnAssign, name: str, owner: str) -> ast.AnnAssign:
    if name == "__members__":
        node.annotation = _expression(f"typing.ClassVar[dict[str, {owner}]]")
    elif name in _WEIGHTS:
        node.annotation = _expression("Weights | numpy.typing.NDArray[numpy.generic]")
    return node


def _name(node: ast.stmt) -> str:
    """Of what a class declares."""
    if isinstance(node, ast.AnnAssign):
        return _last_name(node.target)
    return node.name if isinstance(node, ast.FunctionDef) else ""


def _overridden(nodes: Collection[ast.AST]) -> Iterator[str]:
    """The methods of classes that extend one of the module's."""
    for node in nodes:
        if isinstance(node, ast.ClassDef) and any(
            _last_name(getattr(base, "value", base)) in _MODULES for base in node.bases
        ):
            yield from map(_name, node.body)


def _names(node: ast.AST) -> Iterator[str]:
    return (found.id for found in ast.walk(node) if isinstance(found, ast.Name))


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
