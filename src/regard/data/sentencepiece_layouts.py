"""How the families of published models count the pieces of their SentencePiece vocabularies."""

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
        extra_ids: how many marks <extra_id_0>, <extra_id_1>, ... stand behind its pieces, the last one first.
        added: further tokens, and flags of those.
        roles: tokens by role.

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
        ids: what `vocab.json` says.
        added: tokens that are found in texts as they stand.
        roles: tokens by role.

    Returns:
        The tokenizer.

    Raises:
        CheckpointError: as for `SentencePieceTokenizer`.
    """
    return SentencePieceTokenizer(source, target, ids=ids, added=added, roles=roles, layout="marian")


def xlm_roberta_tokenizer(
    model: bytes, *, added: Iterable[AddedToken] = (), roles: Mapping[str, str]
) -> SentencePieceTokenizer:
    """XLM-RoBERTa's tokenizer, which counts as fairseq does: four marks, then the pieces, then the mask.

    Args:
        model: the bytes of `sentencepiece.bpe.model`, whose first three pieces are marks.
        added: tokens that are found in texts as they stand.
        roles: tokens by role.

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
