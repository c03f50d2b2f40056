"""Reads which parameters of a checkpoint a LoRA file changes, from its header alone, and checks keys and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorikeet.protocol.shorten import listed
from runtime.checkpoints.checkpoint import Component
from runtime.checkpoints.other_models import other_model
from runtime.files.safetensors_file import FLOATS, Header, TensorInfo, read_header
from runtime.lora.kinds import dora
from runtime.lora.kinds.lora_kind import FactorsError, LoraKind, Shape
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_keys import ALPHA, Target, split_key, targets_by_stem
from runtime.lora.made_for import made_for_other_model
from runtime.lora.peft_metadata import PeftMetadata

_MAX_LISTED = 8
_MAX_PROBLEM = 300  # characters of one layer's problem
_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


@dataclass(frozen=True)
class LoraLayer:
    """The change of one parameter, as the file's header describes it.

    `shape`: that of the parameter. `keys`: role -> tensor name. `alpha_rank`: what alpha is divided by. `alpha`: a
    tensor's name, a number from the metadata, or None (alpha = rank). `magnitude`: role and tensor name of DoRA's
    magnitude.
    """

    target: Target
    shape: Shape
    kind: LoraKind
    keys: Mapping[str, str]
    alpha_rank: int | None
    alpha: str | float | None
    rank_stabilized: bool
    magnitude: tuple[str, str] | None

    @property
    def tensor_names(self) -> list[str]:
        """The names of all tensors of this layer, alpha and magnitude included."""
        alpha = [self.alpha] if isinstance(self.alpha, str) else []
        magnitude = [self.magnitude[1]] if self.magnitude else []
        return [*self.keys.values(), *alpha, *magnitude]

    @property
    def low_rank(self) -> int | None:
        """The rank r of `scale * up @ down`, up [out, r] and down [r, in]; None for a change of any other form.

        This is the inner size of the product, also with a Tucker core; it is not what alpha is divided by. DoRA is
        not low-rank: its magnitude rescales the whole weight.
        """
        # The two ranks are equal here: `LoraKind.shape` accepts only square Tucker cores.
        return self.alpha_rank if self.kind.is_low_rank and self.magnitude is None else None

    def scaling(self, alpha: float | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA (arXiv 2312.03732)."""
        if alpha is None or self.alpha_rank is None:
            return 1.0
        return alpha / (math.sqrt(self.alpha_rank) if self.rank_stabilized else self.alpha_rank)


@dataclass
class _KeyGroup:
    """The keys of one file that have one stem and change one parameter (`attribute`) of its layer."""

    stem: str
    attribute: str
    kinds: set[LoraKind] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)  # role -> tensor name, for the roles of one kind
    shared: dict[str, str] = field(default_factory=dict)  # role -> tensor name, for alpha and magnitude

    @property
    def tensor_names(self) -> list[str]:
        return [*self.keys.values(), *self.shared.values()]


def read_lora(path: Path, components: Sequence[Component]) -> list[LoraLayer]:
    """The layers of a LoRA file that change these components of a checkpoint.

    Raises WeightFileError for a file that cannot be read. Raises LoraError when a key names no layer of the components
    or a tensor's shape or dtype does not fit; its message lists the keys and layers.
    """
    header = read_header(path)
    if not header.tensors:
        raise LoraError("the file has no tensors; expected a LoRA in the .safetensors format")
    groups, unknown_keys = _group_keys(header)
    shapes = {component.name: component.shapes for component in components}
    targets, metadata = targets_by_stem(components), PeftMetadata(header.metadata)
    layers: dict[Target, LoraLayer] = {}
    problems = []
    for group in groups:
        target = targets.get(group.stem)
        target = target._replace(attribute=group.attribute) if target else None
        if target is None or target in layers or target.parameter not in shapes[target.component]:
            unknown_keys += group.tensor_names
            continue
        try:
            layers[target] = _layer(target, group, header, metadata, shapes[target.component][target.parameter])
        except FactorsError as error:
            problems.append(f"{target.component}.{target.parameter}: {error}")
    if unknown_keys or problems:
        cause = _cause(groups, header, components)
        raise LoraError(f"{cause}. {_differences(unknown_keys, problems, header)}")
    return list(layers.values())


def _group_keys(header: Header) -> tuple[list[_KeyGroup], list[str]]:
    """The keys by layer and parameter; and those without a LoRA suffix, or that repeat another key's role."""
    groups: dict[tuple[str, str], _KeyGroup] = {}
    unknown_keys = []
    for name in header.tensors:
        key = split_key(name)
        if key is None:
            unknown_keys.append(name)
            continue
        group = groups.setdefault((key.stem, key.attribute), _KeyGroup(key.stem, key.attribute))
        roles = group.keys if key.kind else group.shared
        if roles.setdefault(key.role, name) != name:
            unknown_keys.append(name)
        elif key.kind:
            group.kinds.add(key.kind)
    return list(groups.values()), unknown_keys


def _layer(target: Target, group: _KeyGroup, header: Header, metadata: PeftMetadata, weight: Shape) -> LoraLayer:
    """The layer of a group. `weight` is the shape of the parameter that it changes.

    Raises FactorsError when tensors are missing, have a wrong dtype, or do not fit each other or the weight.
    """
    kind, infos = _only_kind(group), header.tensors
    _check_dtypes(group, infos)
    factors = {role: infos[name].shape for role, name in group.keys.items()}
    shape = kind.shape(factors)
    flattened = (*weight[:1], math.prod(weight[1:]))
    if _without_trailing_ones(shape) != _without_trailing_ones(weight) and shape != flattened:
        raise FactorsError(f"expected shape {list(weight)}, found {list(shape)}")
    magnitudes = [(role, name) for role, name in group.shared.items() if role != ALPHA]
    if len(magnitudes) > 1:
        names = ", ".join(role for role, _ in magnitudes)
        raise FactorsError(f"the file has two DoRA magnitudes ({names}); expected one")
    for role, name in magnitudes:
        dora.axis(role, infos[name].shape, weight)
    return LoraLayer(
        target=target,
        shape=weight,
        kind=kind,
        keys=group.keys,
        alpha_rank=kind.alpha_rank(factors),
        alpha=group.shared.get(ALPHA) or metadata.alpha(target),
        rank_stabilized=metadata.rank_stabilized(target),
        magnitude=magnitudes[0] if magnitudes else None,
    )


def _only_kind(group: _KeyGroup) -> LoraKind:
    if not group.kinds:
        raise FactorsError(f"the file has {group.tensor_names[0]} without the tensors that it scales")
    if len(group.kinds) > 1:
        names = " and ".join(sorted(kind.name for kind in group.kinds))
        raise FactorsError(f"the file has tensors of {names}; expected one kind for a layer")
    return next(iter(group.kinds))


def _check_dtypes(group: _KeyGroup, infos: Mapping[str, TensorInfo]) -> None:
    for name in group.tensor_names:
        info, is_alpha = infos[name], name == group.shared.get(ALPHA)
        allowed = FLOATS + _INTEGERS if is_alpha else FLOATS
        if info.dtype not in allowed:
            raise FactorsError(f"{name} has dtype {info.dtype}; expected {', '.join(allowed)}")
        if is_alpha and math.prod(info.shape) != 1:
            raise FactorsError(f"{name} has shape {list(info.shape)}; expected a single number")


def _cause(groups: Sequence[_KeyGroup], header: Header, components: Sequence[Component]) -> str:
    """Why the file does not fit, as far as its header shows, and what to do."""
    if other := other_model(header.tensors):
        return f"this LoRA was made for {other}; use a LoRA made for Stable Diffusion 1.x, 2.x or XL"
    return made_for_other_model(_change_shapes(groups, header), components) or (
        "this LoRA does not fit the checkpoint; use one made for the checkpoint's model, in a supported format"
    )


def _change_shapes(groups: Sequence[_KeyGroup], header: Header) -> Iterator[tuple[str, Shape]]:
    """(stem, shape of the change) of each group whose tensors fit each other."""
    for group in groups:
        factors = {role: header.tensors[name].shape for role, name in group.keys.items()}
        try:
            yield group.stem, _only_kind(group).shape(factors)
        except FactorsError:
            continue


def _differences(unknown_keys: list[str], problems: list[str], header: Header) -> str:
    most = _MAX_LISTED // 2 if unknown_keys and problems else _MAX_LISTED
    texts = []
    if problems:
        texts.append(f"Layers that do not fit ({len(problems)}): {listed(problems, most, _MAX_PROBLEM)}")
    if unknown_keys:
        count = f"{len(unknown_keys)} of {len(header.tensors)}"
        texts.append(f"Keys that name no layer ({count}): {listed(unknown_keys, most)}")
    return "; ".join(texts)


def _without_trailing_ones(shape: Shape) -> Shape:
    """The shape by which a 1x1 convolution and a linear layer are equal."""
    return _without_trailing_ones(shape[:-1]) if shape[-1:] == (1,) else shape
