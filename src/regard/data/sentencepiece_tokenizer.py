"""Tokenizers of published SentencePiece models, based on the `sentencepiece` package.

T5 uses the ids of its model file, followed by the sentinels <extra_id_0>, <extra_id_1>, ... in reverse order. Marian
has one model file for sources and one for targets, with joint ids in a `vocab.json`; a source may start with the target
language, such as ">>fr<<", which is one token.

Source: unigram: Kudo 2018, arXiv 1804.10959, section 3.2; BPE: Sennrich et al. 2016, arXiv 1508.07909; the whole: Kudo
and Richardson 2018, arXiv 1808.06226.
"""

import base64
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from tokenizers import AddedToken

from regard.data.added_tokens import FLAGS, AddedTokens, mark, plain
from regard.data.text_tokenizer import TextTokenizer, clean_up_spaces
from regard.data.tokenizer import UNSPACED, group_words, is_text
from regard.errors import CheckpointError, DataError

SPACE = "\u2581"
# Class of the transformers package, and its files: model of sources, model of targets, ids.
LAYOUTS = {
    "t5": ("T5Tokenizer", ("spiece.model",)),
    "marian": ("MarianTokenizer", ("source.spm", "target.spm", "vocab.json")),
    "xlm-roberta": ("XLMRobertaTokenizer", ("sentencepiece.bpe.model",)),
    "llama": ("LlamaTokenizer", ("tokenizer.model",)),
}
PAIRED = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}  # the usual roles of encoder-decoders
EXTRA_ID = re.compile(r"<extra_id_\d+>")  # T5's sentinels, which stay in decoded text
NO_PREFIX = bytes([3 << 3 | 2, 2, 3 << 3, 0])  # protobuf to append: normalizer_spec.add_dummy_prefix = false
BLOBS = ("source", "target")  # files within a saved tokenizer
LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)


@final
class SentencePieceTokenizer(TextTokenizer):
    """A tokenizer of a published SentencePiece model.

    Args:
        source: the bytes of the model file for sources.
        target: the bytes of the model file for targets; None for the same.
        ids: id of each token; None for those of the model file.
        added: added tokens, such as T5's <extra_id_0>. Those without an id get the next ones, in order.
        roles: special tokens by role, "unk" included; those that the vocabulary lacks are left out.
        before: roles of the special tokens before a text.
        after: roles of the special tokens after a text.
        layout: a key of `LAYOUTS`: the files of the transformers package. In Marian's, a text may start with a
            language, such as ">>fr<<"; in Llama's, decoded text keeps its spaces.
        prefix_each: whether the model's space before a text is put before each part between added tokens, instead of
            the first only.

    Raises:
        CheckpointError: damaged model files, invalid ids, or a missing token for unk or around a text.
    """

    kind = "sentencepiece"

    def __init__(
        self,
        source: bytes,
        target: bytes | None = None,
        *,
        ids: Mapping[str, int] | None = None,
        added: Iterable[AddedToken] = (),
        roles: Mapping[str, str],
        before: Sequence[str] = (),
        after: Sequence[str] = ("eos",),
        layout: str = "t5",
        prefix_each: bool = True,
    ) -> None:
        self._files = {"source": source, "target": target}
        self._source, pieces = open_model(source, "source")
        self._target = self._source if target is None else open_model(target, "target")[0]
        self._own_ids = ids is None
        self._ids = {piece: i for i, piece in enumerate(pieces)} if ids is None else dict(ids)
        self._added = list(added)
        numbers = itertools.count(1 + max((i for i in self._ids.values() if type(i) is int), default=-1))
        extra = {x.content: next(numbers) for x in self._added if x.content not in self._ids}
        self._all = {**self._ids, **extra}
        self.roles = {role: token for role, token in roles.items() if token in self._all}
        _check_ids(self._all, self.roles, {*before, *after})
        self._pieces = {i: token for token, i in self._all.items()}
        described = {x.content for x in self._added}
        marks = [mark(token) for token in dict.fromkeys(self.roles.values()) if token not in described]
        # MarianTokenizer, which is not based on the `tokenizers` package, matches all tokens in unnormalized text.
        self._layout, self._languages = layout, layout == "marian"
        late = not self._languages and any(x.normalized for x in self._added)
        self._finder = AddedTokens([*self._added, *marks], _normalizer(source) if late else None)
        unseen = [pieces[i] for i in range(len(pieces)) if self._source.is_control(i) or self._source.is_unknown(i)]
        special = {x.content for x in self._added if x.special and not EXTRA_ID.fullmatch(x.content)}
        names = {*self.roles.values(), *unseen, *special}
        self._marks = {self._all[token] for token in names if token in self._all}
        self._sentinels = {self._all[token] for token in described if EXTRA_ID.fullmatch(token)} - self._marks
        self._alone = self._marks | {self._all[token] for token in described}  # each is a separate word
        self._bare = None if prefix_each else open_model(source + NO_PREFIX, "source")[0]
        self._unknown = self._all[self.roles["unk"]]
        self._around = tuple(before), tuple(after)

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces) + 1

    @property
    def fingerprint(self) -> str:
        """A hash, equal for equivalent tokenizers."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    @property
    def before(self) -> list[int]:
        """Ids of the special tokens before a text."""
        return [self._all[self.roles[name]] for name in self._around[0]]

    @property
    def after(self) -> list[int]:
        """Ids of the special tokens after a text."""
        return [self._all[self.roles[name]] for name in self._around[1]]

    def id_of(self, token: str) -> int | None:
        """The id of a token, None if there is no such token."""
        return self._all.get(token)

    def token_of(self, number: int) -> str:
        """The token of an id as the vocabulary has it, empty if there is none."""
        return self._pieces.get(number, "")

    def encode_batch(self, texts: Sequence[str], *, marks: bool = False, target: bool = False) -> list[list[int]]:
        """The ids of each text; see `TextTokenizer`."""
        for text in texts:
            if not is_text(text):
                raise DataError(f"{text!r:.100} is not text that can be encoded in UTF-8; expected a string")
        ids: list[list[int | str]] = [[] for _ in texts]  # ids of added tokens, and text between them
        for some, parts in zip(ids, self._finder.split(texts), strict=True):
            for text, is_token in parts:
                language = LANGUAGE.match(text) if self._languages and not is_token else None
                if is_token:
                    some.append(self._all[text])
                elif language is None:
                    some.append(text)
                else:
                    some += [self._all.get(language[0], self._unknown), text[language.end() :]]
        cut = self._cut_all(ids, target)
        cut = [self.marked(some) for some in cut] if marks else cut
        self.check_rows(cut)
        return cut

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        parts: list[str] = []
        tokens = [i for i in ids if i not in self._marks and i in self._pieces]
        for alone, some in itertools.groupby(tokens, self._sentinels.__contains__):
            pieces = [self._pieces[i] for i in some]
            parts += pieces if alone else [_call(self._target.decode, pieces, str).replace(SPACE, " ")]
        exact = self._layout == "llama"
        text = "".join(parts) if exact else " ".join(part.strip() for part in parts if part.strip())
        return clean_up_spaces(text) if self.clean_up else text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id, without the prefix that stands for a space."""
        return [self.token_of(i).removeprefix(SPACE) or " " for i in ids]

    def words(self, ids: Sequence[int]) -> list[tuple[str, range]]:
        """Group ids into words: the text of each word, and its range of ids; a special token is a word."""
        return group_words(ids, self._starts_word, self._word)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` reads, atomically."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(json.dumps(self._plain(), ensure_ascii=False), encoding="utf-8")
        partial.replace(path)

    def files(self, *, max_length: int | None = None) -> dict[str, bytes]:
        """The files that the transformers package reads such a vocabulary from; see `TextTokenizer`."""
        source = self._files["source"] or b""
        name, files = LAYOUTS[self._layout]
        beside = {self._all[x.content]: plain(x) for x in self._added}
        fields: dict[str, Any] = {"tokenizer_class": name}
        fields |= {} if max_length is None else {"model_max_length": max_length}
        fields |= {"added_tokens_decoder": {str(i): beside[i] for i in sorted(beside)}} if beside else {}
        if self._layout == "t5":
            fields["extra_ids"] = sum(bool(EXTRA_ID.fullmatch(x.content)) for x in self._added)
        if self._layout == "llama":
            marks = {"add_bos_token": bool(self.before), "add_eos_token": bool(self.after)}
            fields |= {**marks, "legacy": self._bare is None}
        vocabulary = json.dumps(self._ids, ensure_ascii=False, indent=2).encode()
        contents = (source, self._files["target"] or source, vocabulary)
        return {**dict(zip(files, contents, strict=False)), **self.described(**fields)}

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "SentencePieceTokenizer":
        """Load a tokenizer that `save` wrote.

        Args:
            path: of the file.

        Returns:
            The tokenizer.

        Raises:
            CheckpointError: a file that is missing or damaged.
        """
        try:
            saved = json.loads(Path(path).read_bytes())
            source, target = (None if (x := saved[name]) is None else base64.b64decode(x) for name in BLOBS)
            if saved["kind"] != SentencePieceTokenizer.kind or saved.get("layout", "t5") not in LAYOUTS:
                problem = f"kind={saved['kind']!r}, layout={saved.get('layout')!r}"
            else:
                options = {name: saved[name] for name in ("before", "after", "layout", "prefix_each") if name in saved}
                options.setdefault("layout", "t5" if saved["ids"] is None else "marian")  # in older files
                roles, ids = dict(saved["roles"]), None if saved["ids"] is None else dict(saved["ids"])
                return SentencePieceTokenizer(
                    source or b"", target, ids=ids, added=_added(saved), roles=roles, **options
                )
        except OSError as error:
            raise CheckpointError(f"{path}: no tokenizer can be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problem = repr(error)
        raise CheckpointError(f"{path} is damaged, or not a SentencePiece tokenizer of regard: {problem}")

    def _plain(self) -> dict[str, Any]:
        files = {name: None if x is None else base64.b64encode(x).decode() for name, x in self._files.items()}
        return {
            "kind": self.kind,
            **files,
            "ids": None if self._own_ids else self._ids,
            "added": [plain(x) for x in self._added],
            "roles": self.roles,
            "before": list(self._around[0]),
            "after": list(self._around[1]),
            "layout": self._layout,
            "prefix_each": self._bare is None,
        }

    def _cut_all(self, texts: list[list[int | str]], target: bool) -> list[list[int]]:
        """The ids of texts, given as parts that are text or ids; all text is encoded in one call."""
        processor = self._target if target else self._source
        parts = [(number, x) for some in texts for number, x in enumerate(some) if isinstance(x, str)]
        if self._bare is None:
            cut = iter(self._cut(processor, [x for _, x in parts]))
        else:
            first = iter(self._cut(processor, [x for number, x in parts if number == 0]))
            others = iter(self._cut(self._bare, [x for number, x in parts if number]))
            cut = (next(others if number else first) for number, _ in parts)
        return [[i for x in some for i in (next(cut) if isinstance(x, str) else [x])] for some in texts]

    def _cut(self, processor: Any, texts: list[str]) -> list[list[int]]:
        if self._own_ids:
            return _call(processor.encode, texts, int)
        cut = _call(processor.encode, texts, str)
        return [[self._all.get(piece, self._unknown) for piece in pieces] for pieces in cut]

    def _starts_word(self, ids: Sequence[int], i: int) -> bool:
        if i == 0 or ids[i] in self._alone or ids[i - 1] in self._alone:
            return True
        piece = self.token_of(ids[i])
        return piece.startswith(SPACE) or bool(UNSPACED.match(piece))

    def _word(self, ids: list[int]) -> str:
        return self.token_of(ids[0]) if ids[0] in self._marks else self.decode(ids) or " "


def _added(saved: Mapping[str, Any]) -> list[AddedToken]:
    """The added tokens of a saved file; older files have only their ids, under "extra"."""
    if "added" not in saved:
        return [mark(content) for content in sorted(saved["extra"], key=saved["extra"].__getitem__)]
    return [AddedToken(x["content"], **{flag: x[flag] for flag in FLAGS}) for x in saved["added"]]


def open_model(model: bytes, what: str) -> tuple[Any, list[str]]:
    """Open a SentencePiece model file.

    Args:
        model: the bytes of a `.model` or `.spm` file.
        what: name of the file in messages.

    Returns:
        The processor of the `sentencepiece` package, and the pieces in the order of their ids.

    Raises:
        CheckpointError: a damaged file, or not a SentencePiece model.
    """
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        processor.encode("a", out_type=str)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{what} is damaged, or no SentencePiece model: {_message(error)}") from error
    return processor, pieces


def _normalizer(model: bytes) -> Callable[[str], str]:
    """The normalization of a model file, without its handling of spaces."""
    import sentencepiece

    same = {"add_dummy_prefix": False, "escape_whitespaces": False, "remove_extra_whitespaces": False}
    normalize: Callable[[str], str] = sentencepiece.SentencePieceNormalizer(model_proto=model, **same).normalize
    return normalize


def _call(method: Callable[..., Any], what: Any, kind: type) -> Any:
    """Call a method of the `sentencepiece` package; raises CheckpointError if the model turns out to be damaged."""
    try:
        return method(what, out_type=kind)
    except (RuntimeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"the SentencePiece model is damaged: {_message(error)}") from error


def _message(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_ids(ids: Mapping[str, int], roles: Mapping[str, str], around: Iterable[str]) -> None:
    """Raise CheckpointError unless all tokens have unique ids, and "unk" and the roles around a text have tokens."""
    numbers: Iterable[object] = ids.values()
    wrong = [token for token, i in ids.items() if type(i) is not int or not 0 <= i < 2**31]
    needed = {"unk", *around}
    lacking = sorted(needed - set(roles))
    if wrong or lacking or len(set(numbers)) != len(ids):
        raise CheckpointError(
            f"the vocabulary of {len(ids)} tokens has {len(wrong)} without a valid id, such as {wrong[:1]}, "
            f"{'duplicate' if not wrong and len(set(numbers)) != len(ids) else 'no duplicate'} ids, and lacks tokens "
            f"for {lacking}; expected a unique id for each token, and tokens for {' and '.join(sorted(needed))}"
        )
