"""Studies over many records: tables of alignment error, heads and faithfulness, from Python and the command line."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import regard as rg
from regard.cli.main import main
from regard.errors import ConfigError, DataError, UnsupportedError
from regard.lens.alignment_error import read_gold
from regard.lens.attribute import Explained, attributions, predictor, trust
from regard.lens.losses import loss_of
from regard.lens.studies import IBM, alignment_study, explain, faithfulness_study, head_study
from regard.models.seq2seq import Vocabulary
from regard.models.text_classifier import TextClassifier, TextClassifierConfig
from regard.tasks.classify import Classifier
from tests.lens.models import tokenizer


def classifier() -> Classifier:
    """A model with random weights for two labels."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 8, "hidden_dim": 4, "align_dim": 4}
    config = TextClassifierConfig(vocabulary=Vocabulary(size=tokenizer().size), num_labels=2, **sizes)
    return Classifier(TextClassifier(config).eval(), tokenizer(), {"labels": ["good", "bad"]})


PAIRS = [
    ("This package contains the documentation.", "Questo pacchetto contiene la documentazione."),
    ("A small text editor.", "Un piccolo editor di testo."),
]
GOLD = ["0-0 1-1 2-2 3-3 4-4", "0-0 1-1 2?3 2-4 3-2"]


def test_the_shipped_translator_aligns_words() -> None:
    translator = rg.load()
    gold, norms = [read_gold(line) for line in GOLD], [translator.see(*pair, norms=True) for pair in PAIRS]
    rows = alignment_study([translator.see(*pair) for pair in PAIRS], PAIRS, gold, norms=norms, corpus=PAIRS)
    errors = {row.name: row.error for row in rows}
    assert errors["mean of all heads"].aer < 0.5
    assert min(error.aer for name, error in errors.items() if name.startswith("best")) <= errors["layer 1"].aer + 0.2
    assert errors["mean of all heads, shifted"].aer > errors["mean of all heads"].aer  # it reads as it writes
    assert errors["value norm, mean of all heads"].aer < 0.5
    assert "IBM model 1, trained on 4 pairs" in errors
    assert IBM in {row.name for row in alignment_study(norms, PAIRS, gold)}
    with pytest.raises(DataError, match="2 pairs beside 1 alignments"):
        alignment_study([translator.see(*pair) for pair in PAIRS], PAIRS, [read_gold("")])


def test_norms_are_those_of_the_values_after_the_output_projection() -> None:
    translator = rg.load()
    plain, norms = translator.see(*PAIRS[1]), translator.see(*PAIRS[1], norms=True)
    for path, weights in plain.weights.items():
        ratios = norms.weights[path] / weights
        assert norms.weights[path].shape == weights.shape
        assert (ratios[weights > 0] > 0).all()
        assert not torch.allclose(norms.weights[path], weights)


class Told(nn.Module):
    """A classifier whose decision is the mean of its tokens' signs: token 5 speaks for label 1, token 6 against it."""

    class Config:
        multi_label = False

    def __init__(self) -> None:
        super().__init__()
        self.config = self.Config()
        self.embedding = nn.Embedding(10, 4)
        self.pooling = rg.MultiHeadAttention(4, 1)
        with torch.no_grad():
            self.embedding.weight.zero_()
            self.embedding.weight[5, 0], self.embedding.weight[6, 0] = 4.0, -4.0
            for part in (self.pooling.query_proj, self.pooling.key_proj):
                part.weight.zero_()
            for part in (self.pooling.value_proj, self.pooling.output_proj):
                part.weight.copy_(torch.eye(4))

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor | None = None) -> "Told.Output":
        hidden = self.pooling(self.embedding(tokens), pattern=None if lengths is None else rg.KeyLengths(lengths))
        score = hidden[:, 0, 0]
        return self.Output(torch.stack([-score, score], 1))

    class Output:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits


Told.__module__ = "regard.tests"  # called as regard's own models are


def test_attributions_find_the_token_that_decides() -> None:
    explained = Explained(Told().eval(), [1, 3, 5, 3, 2], 1, frozenset({0, 4}))
    scores = attributions(explained)
    for name in ("value norm", "attention x gradient", "integrated gradients", "leave one out"):
        assert int(scores[name].argmax()) == 2, name
        assert scores[name][0] == scores[name][4] == 0  # special tokens
    measured = trust(explained, scores)
    assert list(measured)[-2:] == ["random", "uniform"]
    best, random = measured["integrated gradients"], measured["random"]
    assert best.comprehensiveness > random.comprehensiveness
    assert best.sufficiency < random.sufficiency
    assert best.deletion < random.deletion
    kept = torch.tensor([[True, True, False, True, True], [False] * 5])
    assert torch.allclose(predictor(explained)(kept), torch.tensor([0.5, 0.5]))


def test_faithfulness_of_a_classifier() -> None:
    runner = classifier()
    explained = explain(runner, "aa b cc")
    assert 0 <= explained.label < 2
    measured = faithfulness_study(runner, ["aa b cc", "b b"])
    assert set(measured) >= {"attention", "rollout", "random", "uniform"}
    with pytest.raises(DataError, match="no text has two tokens"):
        faithfulness_study(runner, [""])


def test_heads_of_a_translator() -> None:
    translator = rg.load()
    loss = loss_of(translator, PAIRS)
    rows = head_study(translator.module, loss)
    assert len(rows) == 3 * 4 * 3
    assert {row.path for row in rows} >= {"encoder.0.self_attention", "decoder.2.cross_attention"}
    assert max(row.ablation for row in rows if "cross" in row.path) > 0.05  # the source is read through these
    assert all(parameter.grad is None for parameter in translator.module.parameters())
    with pytest.raises(ConfigError, match="has no attention to study"), pytest.warns(UserWarning, match="no attention"):
        head_study(nn.Linear(2, 2), lambda module: module(torch.ones(1, 2)).sum())


def test_losses_refuse_what_they_cannot_use() -> None:
    runner = classifier()
    for records, message in (
        ([], "no records"),
        ([["a"]], "record 1 has one column"),
        ([["a", "sing"]], "no label 'sing'"),
    ):
        with pytest.raises(DataError, match=message):
            loss_of(runner, records)
    runner.module = nn.Linear(1, 1)
    with pytest.raises(UnsupportedError, match="a Classifier has no loss here"):
        loss_of(runner, [["a", "b"]])


def test_the_command_line(tmp_path: Path) -> None:
    pairs, gold = tmp_path / "pairs.tsv", tmp_path / "gold.txt"
    pairs.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    gold.write_text("\n".join(GOLD) + "\n")
    result = CliRunner().invoke(main, ["lens", "align", str(pairs), "--gold", str(gold), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[0])["links from"] == "mean of all heads"
    result = CliRunner().invoke(main, ["lens", "heads", str(pairs), "--limit", "1"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("attention")
    classifier().save(tmp_path / "classifier")
    (tmp_path / "texts.csv").write_text("label,text\ngood,aa b cc\n")
    result = CliRunner().invoke(
        main, ["lens", "faithful", str(tmp_path / "texts.csv"), "--model", str(tmp_path / "classifier")]
    )
    assert result.exit_code == 0, result.output
    assert "integrated gradients" in result.stdout
    pairs.write_text("no tab\n")
    result = CliRunner().invoke(main, ["lens", "align", str(pairs), "--gold", str(gold)])
    assert "pairs.tsv:1: one column; expected a source and a target" in result.stderr


def test_see_a_long_text_and_files(tmp_path: Path) -> None:
    from tests.checkpoints.language_models import gpt2_folder

    folder = gpt2_folder(tmp_path)
    (tmp_path / "book.txt").write_text("the cat sat\non the mat")
    options = ["--model", str(folder), "--html", str(tmp_path / "page.html"), "--npz", str(tmp_path / "view.npz")]
    result = CliRunner().invoke(main, ["see", "--file", str(tmp_path / "book.txt"), "--grid", "8", *options])
    assert result.exit_code == 0, result.output
    assert "Attention of text to itself" in result.stdout
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert (tmp_path / "view.npz").exists()
    result = CliRunner().invoke(main, ["see", "--model", str(folder)])
    assert "give a text, or --file FILE, and not both" in result.stderr
