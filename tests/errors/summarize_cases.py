"""Misuse of summarizers and of what measures them: see `cases.py`."""

import sys
from unittest import mock

import regard as rg
from regard.data.word_tokenizer import WordTokenizer
from regard.errors import DataError, UnsupportedError
from regard.models.pointer_generator import PointerGenerator, PointerGeneratorConfig
from regard.tasks.rouge import rouge
from regard.tasks.summarize import Summarizer
from tests.errors.cases import Case


def summarizer() -> Summarizer:
    """A model with random weights."""
    tokenizer = WordTokenizer.train(["the cat sat on the mat"])
    vocabulary = rg.Vocabulary(size=tokenizer.size)
    module = PointerGenerator(PointerGeneratorConfig(vocabulary=vocabulary, embed_dim=4, hidden_dim=4))
    return Summarizer(module.eval(), tokenizer)


def without_rouge_score() -> object:
    with mock.patch.dict(sys.modules, {"rouge_score.rouge_scorer": None}):
        return rouge(["the cat"], ["the cat sat"])


CASES: list[Case] = [
    ("summarize-evaluate-nothing", lambda: summarizer().evaluate([]), DataError, "no records to evaluate; give a file"),
    ("summarize-see-blank", lambda: summarizer().see(" "), DataError, "text has no words: ' '; expected a document"),
    ("rouge-missing", without_rouge_score, UnsupportedError, "ROUGE needs its package: pip install rouge-score"),
]
