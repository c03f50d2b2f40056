"""Reads which parameters of a checkpoint a LoRA file changes, from its header alone, and checks keys and shapes.

A file may have keys that nothing uses. It is refused when a layer's tensors do not fit, when no key matches, or when it
was made for another model: then a few matching keys would give a half-applied picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lorikeet.protocol.shorten import listed
from runtime.checkpoints.checkpoint import Component
from runtime.files.safetensors_file import read_header
from runtime.files.safetensors_header import Header
from runtime.lora import made_for
from runtime.lora.bundled_embeddings import bundled_embeddings
from runtime.lora.key_suffixes import MAX_KEY, LoraKey, split_key
from runtime.lora.kinds.lora_kind import FactorsError, Shape
from runtime.lora.layer_names import LayerNames, Target
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_layer import KeyGroup, LoraLayer, TensorInfos, fits, make_layer
from runtime.lora.peft_metadata import PeftMetadata
from runtime.lora.unmatched import DESCRIPTIONS, UnmatchedKind, by_kind
from runtime.prompts.embedding_file import EmbeddingTensors

_MAX_LISTED = 8
_MAX_PROBLEM = 300  # characters of one layer's problem
_MAX_PROJECTIONS = 256  # layers whose text width is compared; SDXL has 70
_MAX_UNSUPPORTED_PARTS = 3  # of a suffix: `.oft_R.default.weight`
_UNKNOWN_CAUSE = "this LoRA does not fit the checkpoint; use one made for the checkpoint's model, in a supported format"
_BUNDLED = (UnmatchedKind.EMBEDDING, UnmatchedKind.OUTPUT_EMBEDDING)
_Place = TypeVar("_Place", bound=Hashable)
_Shapes = Mapping[str, Mapping[str, Shape]]  # component -> parameter -> shape


@dataclass(frozen=True)
class LoraContents:
    """The layers of a LoRA file that change a checkpoint, and the keys that change nothing, by kind.

    `embeddings`: the textual inversions that the file bundles, by name.
    """

    header: Header
    layers: Sequence[LoraLayer]
    embeddings: Mapping[str, EmbeddingTensors]
    unmatched: Mapping[UnmatchedKind, Sequence[str]]


@dataclass(frozen=True)
class _Keys:
    """The keys of a file: `groups` by layer and parameter, `unknown` of other layers, `plain` without a LoRA suffix.

    `projections`: the groups of some unknown layers that are key projections of cross-attention.
    """

    groups: Sequence[KeyGroup]
    unknown: Sequence[str]
    plain: Sequence[str]
    projections: Sequence[KeyGroup]


@dataclass(frozen=True)
class _Matches:
    """What matching a file's keys with a checkpoint's layers gave."""

    layers: Mapping[Target, LoraLayer]
    problems: Sequence[str]  # layers whose tensors do not fit
    unmatched: Mapping[UnmatchedKind, Sequence[str]]

    @property
    def unmatched_keys(self) -> list[str]:
        """Their beginnings, without bundled embeddings: their names are free text."""
        kinds = self.unmatched.items()
        return [key[:MAX_KEY] for kind, keys in kinds if kind not in _BUNDLED for key in keys]


def read_lora(path: Path, components: Sequence[Component]) -> LoraContents:
    """The layers of a LoRA file that change these components of a checkpoint.

    Raises WeightFileError for a file that cannot be read. Raises LoraError when no key names a layer of the components,
    when a tensor's shape or dtype does not fit, or when the file was made for another model; its message lists the keys
    and layers. A file that holds nothing but embeddings for the components is accepted.
    """
    header = read_header(path)
    if not header.tensors:
        raise LoraError("the file has no tensors; expected a LoRA in the .safetensors format")
    names = LayerNames(components)
    embeddings = bundled_embeddings(header.tensors, components)
    vectors = {name for embedding in embeddings.values() for name in embedding.names}
    keys = _group_keys({name: info for name, info in header.tensors.items() if name not in vectors}, names)
    matches = _match(keys, header, components, names)
    cause = _other_model(matches, keys, header, components)
    is_empty = not matches.layers and not embeddings
    if not cause and is_empty and not matches.problems:
        cause = made_for.no_lora(header.tensors, keys.plain, components, names)
    if cause or matches.problems or is_empty:
        raise LoraError(f"{cause or _UNKNOWN_CAUSE}. {_differences(matches, len(header.tensors))}")
    return LoraContents(header, list(matches.layers.values()), embeddings, matches.unmatched)


def _group_keys(infos: TensorInfos, names: LayerNames) -> _Keys:
    groups: dict[tuple[tuple[Target, ...], str], KeyGroup] = {}
    targets: dict[str, tuple[Target, ...]] = {}  # by stem
    projections: dict[tuple[str, str], KeyGroup] = {}
    unknown, plain = [], []
    for name in infos:
        if (key := split_key(name)) is None:
            plain.append(name)
            continue
        if (found := targets.get(key.stem)) is None:
            found = targets[key.stem] = names.find(key.stem)
        if found:
            # Keys of one layer are one group, also under two names: then one repeats the other.
            _add(groups, (found, key.attribute), found, name, key)
            continue
        unknown.append(name)
        if made_for.is_key_projection(key.stem) and len(projections) < _MAX_PROJECTIONS:
            _add(projections, (key.stem, key.attribute), (), name, key)
    return _Keys(list(groups.values()), unknown, plain, list(projections.values()))


def _add(groups: dict[_Place, KeyGroup], place: _Place, targets: tuple[Target, ...], name: str, key: LoraKey) -> None:
    """Add a tensor to the group of its place, a new one if there is none."""
    if (group := groups.get(place)) is None:
        group = groups[place] = KeyGroup(key.stem, key.attribute, targets)
    group.add(name, key)


def _match(keys: _Keys, header: Header, components: Sequence[Component], names: LayerNames) -> _Matches:
    shapes = {component.name: component.shapes for component in components}
    metadata = PeftMetadata(header.metadata)
    layers: dict[Target, LoraLayer] = {}
    problems = []
    unmatched_keys = [*keys.plain, *keys.unknown]
    unsupported = _unsupported_stems(keys)
    for group in keys.groups:
        target = _target(group, header.tensors, shapes)
        if target is None or (group.has_no_kind and group.stem in unsupported):
            unmatched_keys += group.tensor_names
            continue
        try:
            if target in layers:
                raise FactorsError(f"{group.tensor_names[0]} repeats {layers[target].tensor_names[0]}")
            weight = shapes[target.component][target.parameter]
            layers[target] = make_layer(target, group, header.tensors, metadata, weight)
        except FactorsError as error:
            problems.append(f"{target.component}.{target.parameter}: {error}")
    return _Matches(layers, problems, by_kind(unmatched_keys, names))


def _unsupported_stems(keys: _Keys) -> set[str]:
    """The stems of keys without a LoRA suffix. Their kinds also have the alpha or magnitude of a supported kind."""
    if not any(group.has_no_kind for group in keys.groups):
        return set()
    stems = set()
    for key in keys.plain:
        stem = key[:MAX_KEY]
        for _ in range(_MAX_UNSUPPORTED_PARTS):
            stem = stem.rpartition(".")[0]
            stems.add(stem)
    return stems


def _target(group: KeyGroup, infos: TensorInfos, shapes: _Shapes) -> Target | None:
    """The parameter that the group changes; None: there is none. Of several, the first that the change's shape fits."""
    targets = [target._replace(attribute=group.attribute) for target in group.targets]
    targets = [target for target in targets if target.parameter in shapes[target.component]]
    if len(targets) > 1:
        try:
            shape = group.change_shape(infos)
        except FactorsError:
            return targets[0]
        fitting = (target for target in targets if fits(shape, shapes[target.component][target.parameter]))
        return next(fitting, targets[0])
    return targets[0] if targets else None


def _other_model(matches: _Matches, keys: _Keys, header: Header, components: Sequence[Component]) -> str | None:
    """A message that names the model that the file was made for; None: the checkpoint's own, as far as is known."""
    unmatched = matches.unmatched_keys
    if not unmatched and not matches.problems:
        return None
    others = matches.unmatched.get(UnmatchedKind.COMPONENT, ())
    matched = sum(len(layer.tensor_names) for layer in matches.layers.values())
    return (
        made_for.other_architecture(unmatched)
        or made_for.other_text_width(_key_projections(keys, header.tensors), components)
        # The first text encoder of SDXL is that of SD 1.x: its keys match.
        or (made_for.other_text_encoder(others, components) if len(unmatched) >= matched else None)
    )


def _key_projections(keys: _Keys, infos: TensorInfos) -> Iterator[tuple[str, Shape]]:
    """(stem, shape of the change) of each cross-attention's key projection whose tensors fit each other."""
    known = (group for group in keys.groups if made_for.is_key_projection(group.stem))
    for group in (*known, *keys.projections):
        try:
            yield group.stem, group.change_shape(infos)
        except FactorsError:
            continue


def _differences(matches: _Matches, tensors: int) -> str:
    texts = []
    most = max(_MAX_LISTED // max(len(matches.unmatched) + bool(matches.problems), 1), 2)
    if matches.problems:
        listing = listed(matches.problems, most, _MAX_PROBLEM)
        texts.append(f"Layers that do not fit ({len(matches.problems)}): {listing}")
    for kind, keys in matches.unmatched.items():
        text = DESCRIPTIONS[kind]
        texts.append(f"{text[0].upper()}{text[1:]} ({len(keys)} of {tensors}): {listed(keys, most)}")
    return "; ".join(texts)
