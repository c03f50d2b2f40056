"""The base of all messages, number types that refuse booleans, and the mark of a file field."""

import sys
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from typing_extensions import Self

from lorikeet.protocol.encodable import is_encodable
from lorikeet.protocol.shorten import shorten

MAX_JSON_DEPTH = 32
_NO_TEXT = "text must be valid Unicode, without half of a surrogate pair"


class Model(BaseModel):
    """Base of all messages. It keeps unknown fields, reads null as an absent field, refuses NaN and infinity.

    `aliases`: other names of fields, for values that do not have the field's own name.
    """

    # protected_namespaces: `model_name` and `model_subfolder` are the API's own names.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    aliases: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        present = {name: value for name, value in data.items() if value is not None or not cls._has_default(name)}
        for alias, name in cls.aliases.items():
            if alias in present and present.get(name) is None:
                present[name] = present.pop(alias)
        return present

    @classmethod
    def _has_default(cls, name: object) -> bool:
        field = cls.model_fields.get(name) if isinstance(name, str) else None
        return field is not None and not field.is_required()

    @model_validator(mode="after")
    def _extra_is_json(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if problem := json_problem(value):
                raise ValueError(f"{shorten(name) or '(a field without a name)'}: {problem}")
        return self

    def to_json(self) -> str:
        """The message as JSON, with only the fields that were set."""
        return self.model_dump_json(exclude_unset=True)


def json_problem(value: object) -> str | None:
    """Why `value` is not JSON with finite numbers, valid text and at most `MAX_JSON_DEPTH` levels; None if it is."""
    stack = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_JSON_DEPTH:
            return f"nested deeper than {MAX_JSON_DEPTH} levels"
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                return "the keys of an object must be strings"
            if not all(map(is_encodable, node)):
                return _NO_TEXT
            stack.extend((child, depth + 1) for child in node.values())
        elif isinstance(node, list):
            stack.extend((child, depth + 1) for child in node)
        elif isinstance(node, (int, float)) and not _is_finite(node):
            return "numbers must be finite"
        elif isinstance(node, str) and not is_encodable(node):
            return _NO_TEXT
        elif node is not None and not isinstance(node, (str, int, float)):
            return f"{type(node).__name__} is not a JSON type"
    return None


def _is_finite(number: float) -> bool:
    """Whether `number` is neither NaN nor infinite; an int too large for a float counts as infinite."""
    return -sys.float_info.max <= number <= sys.float_info.max


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not a boolean")
    return value


class FileMark:
    """Annotation metadata: this string may be a path, a URL, a data URI, a Hub id or `tensor:<i>`."""


Int = Annotated[int, BeforeValidator(_refuse_bool)]
Float = Annotated[float, BeforeValidator(_refuse_bool)]
Name = Annotated[str, StringConstraints(max_length=255)]
Prompt = Annotated[str, StringConstraints(max_length=10_000)]
FileRef = Annotated[str, StringConstraints(min_length=1), FileMark()]
