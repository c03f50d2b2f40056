"""Reads what a LoRA file holds against a checkpoint, from its header alone: every key matched, every shape checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.other_models import other_model
from runtime.files.safetensors_file import FLOATS, Header, TensorInfo, read_header
from runtime.lora.config import LoraConfig
from runtime.lora.keys import ALPHA, Target, modules, split_key
from runtime.lora.kinds import dora
from runtime.lora.kinds.kind import Kind, PartsError, Shape
from runtime.lora.kinds.lora import LORA
from runtime.lora.lora_error import LoraError
from runtime.lora.origin import origin

_LISTED = 8
_SHOWN = 300  # characters of a key, which may be megabytes
_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


@dataclass(frozen=True)
class LoraLayer:
    """What a file says of one parameter: `keys` by role, the kind of change that they are, and its `factor`.

    The factor is alpha / rank. `alpha` is a tensor's name, or a number from the metadata, or None: alpha = rank.
    `magnitude` is DoRA's: the role and the tensor's name.
    """

    target: Target
    kind: Kind
    keys: Mapping[str, str]
    rank: int | None
    alpha: str | float | None
    rank_stabilized: bool
    magnitude: tuple[str, str] | None

    @property
    def tensors(self) -> list[str]:
        """The names of all of its tensors."""
        alpha = [self.alpha] if isinstance(self.alpha, str) else []
        magnitude = [self.magnitude[1]] if self.magnitude else []
        return [*self.keys.values(), *alpha, *magnitude]

    @property
    def low_rank(self) -> int | None:
        """The inner size of the product `scale * up @ down` where the change is one; None for every other kind."""
        return self.rank if self.kind is LORA and self.magnitude is None else None

    def factor(self, alpha: float | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA (arXiv 2312.03732)."""
        if alpha is None or self.rank is None:
            return 1.0
        return alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


@dataclass
class _Group:
    """The keys of one file that share a stem and speak of one parameter of the layer."""

    stem: str
    attribute: str
    kinds: set[Kind] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)  # by role, those of its kind
    shared: dict[str, str] = field(default_factory=dict)  # by role, alpha and magnitude

    def __iter__(self) -> Iterator[str]:
        return iter((*self.keys.values(), *self.shared.values()))


def read_lora(path: Path, components: Sequence[Component]) -> list[LoraLayer]:
    """The layers of a LoRA file for these components of a checkpoint.

    Raises WeightFileError for a file that cannot be read, and LoraError listing the keys that match nothing, or the
    shapes that differ.
    """
    header = read_header(path)
    if not header.tensors:
        raise LoraError("it holds no tensors")
    groups, strangers = _group(header)
    shapes = {component.name: component.shapes for component in components}
    table, config = modules(components), LoraConfig(header.metadata)
    layers: dict[Target, LoraLayer] = {}
    problems = []
    for group in groups:
        target = table.get(group.stem)
        target = target._replace(attribute=group.attribute) if target else None
        if target is None or target in layers or target.parameter not in shapes[target.component]:
            strangers += group
            continue
        try:
            layers[target] = _layer(target, group, header, config, shapes[target.component][target.parameter])
        except PartsError as error:
            problems.append(f"{target.component}.{target.parameter}: {error}")
    if strangers or problems:
        other = other_model(header.tensors)
        made_for = f"made for {other}: " if other else origin(_shapes(groups, header), components)
        raise LoraError(made_for + _refusal(strangers, problems, header))
    return list(layers.values())


def _group(header: Header) -> tuple[list[_Group], list[str]]:
    """The keys by layer and parameter, and those that end like no LoRA key or say again what another one says."""
    groups: dict[tuple[str, str], _Group] = {}
    strangers = []
    for name in header.tensors:
        key = split_key(name)
        if key is None:
            strangers.append(name)
            continue
        group = groups.setdefault((key.stem, key.attribute), _Group(key.stem, key.attribute))
        roles = group.keys if key.kind else group.shared
        if roles.setdefault(key.role, name) != name:
            strangers.append(name)
        elif key.kind:
            group.kinds.add(key.kind)
    return list(groups.values()), strangers


def _layer(target: Target, group: _Group, header: Header, config: LoraConfig, weight: Shape) -> LoraLayer:
    """Raises PartsError: tensors missing, of the wrong dtype, or of shapes that do not fit each other or the weight."""
    kind, infos = _kind(group), header.tensors
    _check_dtypes(group, infos)
    parts = {role: infos[name].shape for role, name in group.keys.items()}
    shape = kind.shape(parts)
    if _bare(shape) != _bare(weight) and shape != (*weight[:1], math.prod(weight[1:])):
        raise PartsError(f"expects {list(weight)}, the file has {list(shape)}")
    magnitudes = [(role, name) for role, name in group.shared.items() if role != ALPHA]
    if len(magnitudes) > 1:
        raise PartsError("it has two magnitudes")
    for role, name in magnitudes:
        dora.axis(role, infos[name].shape, weight)
    return LoraLayer(
        target=target,
        kind=kind,
        keys=group.keys,
        rank=kind.rank(parts),
        alpha=group.shared.get(ALPHA) or config.alpha(target),
        rank_stabilized=config.rank_stabilized(target),
        magnitude=magnitudes[0] if magnitudes else None,
    )


def _kind(group: _Group) -> Kind:
    if not group.kinds:
        raise PartsError(f"{next(iter(group))} has no counterpart")
    if len(group.kinds) > 1:
        raise PartsError(f"it is {' and '.join(sorted(kind.name for kind in group.kinds))} at once")
    return next(iter(group.kinds))


def _check_dtypes(group: _Group, infos: Mapping[str, TensorInfo]) -> None:
    for name in group:
        info, is_alpha = infos[name], name == group.shared.get(ALPHA)
        if info.dtype not in (FLOATS + _INTEGERS if is_alpha else FLOATS):
            raise PartsError(f"{name} is {info.dtype}; LoRA tensors are {', '.join(FLOATS)}")
        if is_alpha and math.prod(info.shape) != 1:
            raise PartsError(f"{name} is no single number")


def _shapes(groups: Sequence[_Group], header: Header) -> Iterator[tuple[str, Shape]]:
    """(stem, shape of the change) of what can be read of a file that does not fit."""
    for group in groups:
        try:
            yield (
                group.stem,
                _kind(group).shape({role: header.tensors[name].shape for role, name in group.keys.items()}),
            )
        except PartsError:
            continue


def _refusal(strangers: list[str], problems: list[str], header: Header) -> str:
    texts = []
    most = _LISTED // 2 if strangers and problems else _LISTED
    if problems:
        texts.append(f"{len(problems)} of its layers do not fit this checkpoint: {_list(problems, most)}")
    if strangers:
        texts.append(f"{len(strangers)} of its {len(header.tensors)} keys match nothing: {_list(strangers, most)}")
    return "; ".join(texts)


def _bare(shape: Shape) -> Shape:
    """A shape without its last ones: a 1x1 convolution and a linear layer are the same."""
    return _bare(shape[:-1]) if shape[-1:] == (1,) else shape


def _list(items: list[str], most: int) -> str:
    more = len(items) - most
    return ", ".join(item[:_SHOWN] for item in items[:most]) + (f" and {more} more" if more > 0 else "")
