"""The textual inversions of a request, and those that its LoRAs bundle: found, and checked against the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lorikeet.protocol.shorten import listed, shorten
from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.safetensors_file import WeightFileError
from runtime.files.stored_file import FileChangedError, StoredFile, check_unchanged
from runtime.lora.known_loras import lora_summary
from runtime.lora.lora_error import LoraError
from runtime.plan import EmbeddingPlan, LoraPlan, is_guided
from runtime.prompts.embedding_file import EmbeddingError, read_embedding
from runtime.prompts.normal_text import normal_text
from runtime.prompts.weighting import WeightedText, parse_weights
from runtime.stage_errors import InvalidArgument
from runtime.stages.prepare.context import PrepareContext

MAX_VECTORS = 2400  # of all embeddings: 32 of the longest ones, 12 MB for the widest text encoder
_NAMED = 4  # tokens in a message
_BETWEEN = "\0"  # texts that are searched: no word of a prompt has it
_BRACKETS = re.compile(r"[()\[\]\\]")  # the characters that weights give a meaning


def resolve(
    request: ImageToImageInput, context: PrepareContext, checkpoint: Checkpoint, loras: Sequence[LoraPlan]
) -> tuple[EmbeddingPlan, ...]:
    """Raises InvalidArgument that names the first embedding that cannot be fetched or does not fit."""
    named = [_embedding(request, index, context, checkpoint) for index in range(len(request.embeddings))]
    found = (*named, *_bundled(loras, checkpoint))
    total = 0
    for embedding in found:
        total += embedding.vectors
        if total > MAX_VECTORS:
            raise InvalidArgument(embedding.field, f"the embeddings have more than {MAX_VECTORS} vectors: use fewer")
    _check_tokens(found)
    return found


def warnings(request: ImageToImageInput, checkpoint: Checkpoint, embeddings: Sequence[EmbeddingPlan]) -> Iterator[str]:
    """For each file, the tokens of its embeddings that have no effect, because no prompt has a token of theirs."""
    if not embeddings:
        return
    # One text for all searches: a prompt may have thousands of parts, and the embeddings thousands of tokens.
    text = _BETWEEN.join(dict.fromkeys(normal_text(text) for text in _encoded_texts(request, checkpoint)))
    unused: dict[str, list[str]] = {}
    for embedding in embeddings:
        if not any(_has_token(text, token, embedding.whole_words) for token in embedding.tokens):
            unused.setdefault(embedding.field, []).extend(embedding.tokens)
    for field, tokens in unused.items():
        yield (
            f"{field}: no prompt that is read has {_shown(tokens)}: without its token, an embedding has no effect"
            f"{_hint(request, tokens)}"
        )


def _encoded_texts(request: ImageToImageInput, checkpoint: Checkpoint) -> Iterator[str]:
    """The texts that are tokenized, each alone: the prompts, or their parts of equal weight."""
    prompts = [request.prompt, request.negative_prompt] if is_guided(request, checkpoint) else [request.prompt]
    for prompt in prompts:
        parts = parse_weights(prompt) if request.prompt_weighting else [[WeightedText(prompt, 1.0)]]
        yield from (text for part in parts for text, _ in part)


def _has_token(text: str, token: str, whole_words: bool) -> bool:
    """Whether a text in normal form has the token, and with `whole_words` not as a part of a longer word."""
    normal = normal_text(token)
    if not whole_words:
        return normal in text
    return re.search(rf"(?<!\w){re.escape(normal)}(?!\w)", text) is not None


def _hint(request: ImageToImageInput, tokens: Sequence[str]) -> str:
    """Why tokens that the client may have written are not found."""
    if request.prompt_weighting and any(_BRACKETS.search(token) for token in tokens):
        return "; with prompt_weighting, write a backslash before each bracket and backslash of a token"
    return ""


def _embedding(
    request: ImageToImageInput, index: int, context: PrepareContext, checkpoint: Checkpoint
) -> EmbeddingPlan:
    field, embedding = f"embeddings[{index}].path", request.embeddings[index]
    context.check_cancelled()
    try:
        stored = context.files.embedding(field, embedding.path, context.request_files)
        found = read_embedding(stored.path, checkpoint.text_encoders)
        check_unchanged(stored.path, stored.fingerprint)
    except (EmbeddingError, WeightFileError, FileChangedError) as error:
        raise InvalidArgument(field, str(error)) from error
    tokens = embedding.tokens if "tokens" in embedding.model_fields_set else [f"<s{i}>" for i in range(found.vectors)]
    if len(tokens) not in (1, found.vectors):
        raise InvalidArgument(
            f"embeddings[{index}].tokens",
            f"{len(tokens)} tokens for {found.vectors} vectors: expected one for all vectors, or one for each",
        )
    return EmbeddingPlan(
        field=field,
        path=stored.path,
        digest=stored.digest,
        fingerprint=stored.fingerprint,
        tokens=tuple(tokens),
        vectors=found.vectors,
        tensors=found.names,
    )


def _bundled(loras: Sequence[LoraPlan], checkpoint: Checkpoint) -> Iterator[EmbeddingPlan]:
    """Those of LoRAs with a scale other than 0; of a file that is there twice, once."""
    once = {lora.digest: lora for lora in reversed(loras) if lora.scale}
    for lora in loras:
        if once.get(lora.digest) is not lora:
            continue
        try:
            summary = lora_summary(StoredFile(lora.path, lora.digest, lora.fingerprint), checkpoint.adaptable)
        except (LoraError, WeightFileError, FileChangedError) as error:
            raise InvalidArgument(lora.field, str(error)) from error
        for name, found in summary.embeddings.items():
            yield EmbeddingPlan(
                field=lora.field,
                path=lora.path,
                digest=lora.digest,
                fingerprint=lora.fingerprint,
                tokens=(name,),
                whole_words=True,  # the client did not choose the name, which may be a part of usual words
                vectors=found.vectors,
                tensors=found.names,
            )


def _check_tokens(embeddings: Sequence[EmbeddingPlan]) -> None:
    """No token is blank, and no two are equal to the tokenizer."""
    fields: dict[str, str] = {}
    for embedding in embeddings:
        field = _tokens_field(embedding)
        for token in embedding.tokens:
            normal = normal_text(token).strip()
            if not normal:
                raise InvalidArgument(field, "a token is blank: expected visible characters")
            if normal in fields:
                raise InvalidArgument(field, f"{_shown([token])} is in {fields[normal]} too: expected different tokens")
            fields[normal] = field


def _tokens_field(embedding: EmbeddingPlan) -> str:
    """The field that names its tokens: a bundled one has those of its file."""
    own = embedding.field.startswith("embeddings[")
    return embedding.field.removesuffix(".path") + ".tokens" if own else embedding.field


def _shown(tokens: Sequence[str]) -> str:
    return listed([repr(shorten(token, 100)) for token in tokens], _NAMED, 120)
