"""Walks over a message: its nested messages and its file references."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar, get_args

from lorikeet.schema.base import FileMark, Model

AnyModel = TypeVar("AnyModel", bound=Model)


def walk_models(model: Model, prefix: str = "") -> Iterator[tuple[str, Model]]:
    """Yield (prefix, message) for `model` and each message in it; prefix + field is a dotted location."""
    yield prefix, model
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Model):
            yield from walk_models(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Model):
                    yield from walk_models(item, f"{prefix}{name}[{index}].")


def file_refs(model: Model) -> list[tuple[str, str]]:
    """(dotted location, value) of every file reference that is present, in the schema's order."""
    found: list[tuple[str, str]] = []

    def note(location: str, value: str) -> str:
        found.append((location, value))
        return value

    map_file_refs(model, note)
    return found


def map_file_refs(model: AnyModel, replace: Callable[[str, str], str]) -> AnyModel:
    """A deep copy of `model` with each file reference replaced by `replace(dotted location, value)`."""
    copy = model.model_copy(deep=True)
    for prefix, part in walk_models(copy):
        for name in _file_fields(type(part)):
            location, value = prefix + name, getattr(part, name)
            if isinstance(value, str):
                setattr(part, name, replace(location, value))
            elif isinstance(value, list):
                setattr(part, name, [replace(f"{location}[{i}]", item) for i, item in enumerate(value)])
    return copy


@cache
def _file_fields(model: type[Model]) -> tuple[str, ...]:
    fields = model.model_fields.items()
    return tuple(name for name, field in fields if _is_marked((*field.metadata, field.annotation)))


def _is_marked(annotations: tuple[object, ...]) -> bool:
    return any(isinstance(item, FileMark) or _is_marked(get_args(item)) for item in annotations)
