"""SentencePiece tokenizers of T5, Marian and XLM-RoBERTa, which differ in the ids of pieces."""

from collections.abc import Iterable, Mapping

from tokenizers import AddedToken

from regard.data.added_tokens import mark
from regard.data.sentencepiece_tokenizer import PAIRED, SentencePieceTokenizer, open_model

FAIRSEQ = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}  # the first tokens of its vocabularies


def t5_tokenizer(
    model: bytes,
    *,
    extra_ids: int = 100,
    added: Iterable[AddedToken] = (),
    roles: Mapping[str, str] = PAIRED,
) -> SentencePieceTokenizer:
    """T5's tokenizer.

    Args:
        model: the bytes of `spiece.model`.
        extra_ids: number of sentinel tokens <extra_id_0>, <extra_id_1>, ..., which follow the pieces in reverse order.
        added: further added tokens, or flags of the sentinels.
        roles: special tokens by role.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: as for `SentencePieceTokenizer`.

    Source: Raffel et al. 2019, arXiv 1910.10683, section 3.1.4.
    """
    described = {x.content: x for x in added}
    names = [f"<extra_id_{i}>" for i in reversed(range(extra_ids))]
    extra = [described.pop(name, mark(name)) for name in names]
    return SentencePieceTokenizer(model, added=[*extra, *described.values()], roles=roles)


def marian_tokenizer(
    source: bytes,
    target: bytes,
    ids: Mapping[str, int],
    *,
    added: Iterable[AddedToken] = (),
    roles: Mapping[str, str] = PAIRED,
) -> SentencePieceTokenizer:
    """Marian's tokenizer, with one vocabulary for source and target.

    Args:
        source: the bytes of `source.spm`.
        target: of `target.spm`.
        ids: id of each token, from `vocab.json`.
        added: added tokens.
        roles: special tokens by role.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: as for `SentencePieceTokenizer`.
    """
    return SentencePieceTokenizer(source, target, ids=ids, added=added, roles=roles, layout="marian")


def xlm_roberta_tokenizer(
    model: bytes, *, added: Iterable[AddedToken] = (), roles: Mapping[str, str]
) -> SentencePieceTokenizer:
    """XLM-RoBERTa's tokenizer, with fairseq's ids: four special tokens, then the pieces, then the mask token.

    Args:
        model: the bytes of `sentencepiece.bpe.model`, whose first three pieces are special tokens.
        added: added tokens.
        roles: special tokens by role.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: as for `SentencePieceTokenizer`.

    Source: Conneau et al. 2019, arXiv 1911.02116, section 3.
    """
    marks = [roles.get(role, usual) for role, usual in FAIRSEQ.items()]
    tokens = [*marks, *open_model(model, "sentencepiece.bpe.model")[1][len(marks) - 1 :], roles.get("mask", "<mask>")]
    ids = {token: i for i, token in enumerate(tokens)}
    return SentencePieceTokenizer(
        model, ids=ids, added=added, roles=roles, before=["cls"], after=["sep"], layout="xlm-roberta"
    )
