"""Misuse of BERT and of the jobs of encoders: see `cases.py`."""

import tempfile
from collections.abc import Callable

import torch
from click import UsageError

import regard as rg
from regard.cli.see import command
from regard.cli.shared import open_for
from regard.errors import CheckpointError, ConfigError, DataError, ShapeError, UnsupportedError
from regard.models.bert_names import to_bert
from regard.models.padding import to_right
from regard.tasks.encode import Encoder
from tests.checkpoints.published import bert, encoder
from tests.cli.run import model_folder

TOKENS = torch.tensor([[2, 5, 6, 3]])
LONG = " ".join(["cat"] * 30)


def see_target() -> object:
    """Ask to see a translation of a model that translates nothing."""
    with tempfile.TemporaryDirectory() as folder:
        encoder().save(folder)
        words = ["the cat", "--target", "il gatto", "--model", folder]
        return command.main(words, standalone_mode=False)


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "bert-activation",
        lambda: rg.BertConfig(activation="gelo"),
        ConfigError,
        "BertConfig: unknown activation 'gelo'; did you mean 'gelu'?",
    ),
    (
        "bert-size",
        lambda: rg.BertConfig.from_preset("bse"),
        ConfigError,
        "BERT has no preset 'bse'; did you mean 'base'?",
    ),
    ("bert-types", lambda: rg.BertConfig(num_token_types=0), ConfigError, "BertConfig: num_token_types=0 must be an"),
    ("bert-pad", lambda: rg.BertConfig(family="roberta", pad=None), ConfigError, "BertConfig: pad=None must be an"),
    (
        "bert-family-limit",
        lambda: to_bert(bert(family="distilbert")),
        UnsupportedError,
        "DistilBert checkpoints have no num_token_types=2; expected None",
    ),
    (
        "encoder-tokens",
        lambda: bert()(TOKENS[0]),
        ShapeError,
        "tokens is Tensor(torch.int64, (4,)); expected token ids",
    ),
    (
        "encoder-lengths",
        lambda: bert()(TOKENS, torch.tensor([3, 1])),
        ShapeError,
        "lengths is Tensor(torch.int64, (2,)); expected integers of shape (1,): the number of inputs in each row that",
    ),
    (
        "encoder-long",
        lambda: bert()(torch.zeros(1, 12, dtype=torch.int64)),
        ShapeError,
        "tokens has length 12, and the model has 11 positions; shorten the texts",
    ),
    (
        "encoder-types",
        lambda: bert()(TOKENS, token_types=TOKENS[:, :2]),
        ShapeError,
        "token_types has shape (1, 2); expected the shape of tokens, (1, 4)",
    ),
    (
        "bert-pooler",
        lambda: bert(pooler=True)(TOKENS[:, :0]),
        ShapeError,
        "Bert: tokens has shape (1, 0); expected at least one token in each text",
    ),
    (
        "padding-mask",
        lambda: to_right(TOKENS[0]),
        ShapeError,
        "mask is Tensor(torch.int64, (4,)); expected an attention mask of shape (batch, length), 0 at padding",
    ),
    (
        "embed-pooling",
        lambda: encoder().embed(["a cat"], pooling="men"),
        ConfigError,
        "embed: unknown pooling 'men'; did you mean 'mean'?",
    ),
    (
        "embed-nothing",
        lambda: encoder(marks=False).embed(["a", " "]),
        DataError,
        "text 2 has no tokens: ' '; leave it out",
    ),
    ("embed-texts", lambda: encoder().embed("a cat"), DataError, "texts='a cat' must be a list of texts"),
    (
        "fill-head",
        lambda: encoder(masked_words=False).fill(["a [MASK]"]),
        UnsupportedError,
        "fill: the checkpoint has no masked-word head; it can embed texts",
    ),
    (
        "fill-vocabulary",
        lambda: encoder(marks=False).fill(["a"]),
        UnsupportedError,
        "fill: the vocabulary has no mask token",
    ),
    (
        "fill-no-mask",
        lambda: encoder().fill(["a [MASK]", "a <mask>"]),
        DataError,
        "text 2 has no [MASK]: 'a <mask>'; write [MASK] where a word is to be found",
    ),
    (
        "fill-long",
        lambda: encoder().fill([f"[MASK] {LONG}"]),
        DataError,
        "text 1 has 33 tokens; expected at most 11: shorten it",
    ),
    ("see-long", lambda: encoder().see(LONG), DataError, "text has 32 tokens; expected 1 to 11"),
    (
        "encoder-no-tokenizer",
        lambda: Encoder(bert(), None).embed(["a"]),
        CheckpointError,
        "the model's folder has no tokenizer that regard can read; expected tokenizer.json, v",
    ),
    (
        "export-kind",
        lambda: rg.export_hf(rg.MultiHeadAttention(8, 2), "/nowhere"),
        UnsupportedError,
        "export_hf: MultiHeadAttention has no published layout; expected one of Bert, GPT",
    ),
    (
        "job-missing",
        lambda: open_for("fill", str(model_folder()), None, "cpu"),
        UnsupportedError,
        "is a Translator, which cannot fill; give the folder or the hub name of a model that can",
    ),
    ("see-target", see_target, UsageError, "see of a model of this kind (Encoder) takes no target"),
]
