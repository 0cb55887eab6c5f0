"""Verbs with published folders of other kinds than theirs, or without a tokenizer: one message that says what it is."""

import json
from pathlib import Path

import pytest

from tests.checkpoints.language_models import gpt2_folder
from tests.checkpoints.published import marian, write_bert
from tests.cli.run import error, regard

VERBS = {
    "translate": ["translate", "a cat"],
    "evaluate": ["evaluate"],
    "complete": ["complete", "a cat"],
    "fill": ["fill", "a [MASK]"],
    "embed": ["embed", "a cat"],
}
MAKE = {"Encoder": write_bert, "TextGenerator": gpt2_folder, "Translator": marian}
OF = {"Encoder": ["fill", "embed"], "TextGenerator": ["complete"], "Translator": ["translate", "evaluate"]}


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.tsv"
    path.write_text("a cat\tun gatto\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_and_a_kind(verb: str, kind: str, pairs: str, tmp_path: Path) -> None:
    folder = str(MAKE[kind](tmp_path / "model"))
    words = [*VERBS[verb], *([pairs] if verb == "evaluate" else []), "--model", folder]
    if verb not in OF[kind]:
        article = "an" if kind == "Encoder" else "a"
        assert error(*words, code=1).startswith(f"{folder} is {article} {kind}, which cannot {verb}; give the folder")
    elif kind == "Translator":  # whose folder has no vocabulary
        assert "the model's folder has no tokenizer that regard can read" in error(*words, code=1)
    else:
        assert regard(*words).exit_code == 0


@pytest.mark.parametrize("kind", MAKE)
def test_info(kind: str, tmp_path: Path) -> None:
    folder = MAKE[kind](tmp_path / "model")
    if kind != "Encoder":
        said = {"num_beams": 3, "renormalize_logits": True, "encoder_repetition_penalty": 2.0}
        (folder / "generation_config.json").write_text(json.dumps(said))
    found = json.loads(regard("info", str(folder), "--json").stdout)
    assert found["published model"] == json.loads((folder / "config.json").read_text())["model_type"]
    assert {*OF[kind]} <= {*found["verbs"].split(", ")}
    assert found["weights"]["parameters"] > 0
    if kind != "Encoder":
        assert found["generation"] == said
        assert found["search"].startswith("refused: the checkpoint asks for encoder_repetition_penalty=2.0")
        (folder / "generation_config.json").write_text(json.dumps({"num_beams": 3}))
        assert "Beam(size=3" in regard("info", str(folder)).stdout


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: x for name, x in config.items() if name != "model_type"}))
    for words in (["info", str(folder)], ["embed", "a", "--model", str(folder)]):
        assert 'config.json has neither a "model_type"' in error(*words, code=1)
