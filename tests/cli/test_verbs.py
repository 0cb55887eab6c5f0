"""`regard evaluate`, `regard see` and `regard info`."""

import json
from pathlib import Path

import pytest

from regard.decode.search import Greedy
from regard.lens import files
from regard.lens.terminal import draw
from tests.checkpoints.made import SENTENCES, translator
from tests.cli.run import error, model_folder, regard

MODEL = ("--model", str(model_folder()))
PAIRS = [(SENTENCES[0], SENTENCES[1]), (SENTENCES[2], SENTENCES[3])]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "test.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    return str(path)


def test_evaluate(file: str) -> None:
    found = json.loads(regard("evaluate", file, *MODEL, "--greedy", "--json").stdout)
    expected = translator().evaluate(PAIRS, search=Greedy())
    assert found["scores"] == expected.scores._asdict()
    assert (found["pairs"], found["search"], found["skipped"]) == (2, "Greedy()", {})
    words = ("--greedy", "--json", "--max-length", "1", "--whole")
    short = json.loads(regard("evaluate", file, *MODEL, *words).stdout)
    assert (short["unfinished"], short["tokens"]) == (2, 4)
    table = regard("evaluate", file, *MODEL, "--greedy").stdout
    assert f"all                    2{expected.scores.bleu:8.1f}{expected.scores.chrf:8.1f}\n" in table
    assert "pairs/s" in table
    assert json.loads(regard("evaluate", file, *MODEL, "--greedy", "--json", "--first", "1").stdout)["pairs"] == 1


def test_evaluate_with_another_tokenizer(file: str) -> None:
    words = ("evaluate", file, *MODEL, "--greedy", "--tokenize", "char")
    found = json.loads(regard(*words, "--json").stdout)
    assert found["scores"] == translator().evaluate(PAIRS, search=Greedy(), tokenize="char").scores._asdict()
    assert f"sacrebleu bleu: {found['signatures']['bleu']}\n" in regard(*words).stdout
    assert "tok:char" in found["signatures"]["bleu"]
    message = error("evaluate", file, *MODEL, "--tokenize", "cha", code=1)
    assert "tokenize='cha' is none of sacrebleu's; did you mean 'char'?" in message


def test_evaluate_other_inputs(file: str, tmp_path: Path) -> None:
    sides = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, texts in zip(sides, zip(*PAIRS, strict=True), strict=True):
        path.write_text("\n".join(texts), encoding="utf-8")
    words = ("evaluate", *MODEL, "--greedy", "--json")
    expected = json.loads(regard(*words, file).stdout)["scores"]
    assert json.loads(regard(*words, "--parallel", *map(str, sides)).stdout)["scores"] == expected
    stdin = Path(file).read_text(encoding="utf-8") + "a bad row\n"
    assert "a bad row" in error(*words, "-", stdin=stdin, code=1)
    found = json.loads(regard(*words, "-", "--skip-bad-rows", stdin=stdin).stdout)
    assert found["scores"] == expected
    assert sum(found["skipped"].values()) == 1
    (tmp_path / "wide.tsv").write_text("".join(f"{b}\t7\t{a}\n" for a, b in PAIRS), encoding="utf-8")
    columns = ("--source-field", "3", "--target-field", "1")
    assert json.loads(regard(*words, str(tmp_path / "wide.tsv"), *columns).stdout)["scores"] == expected
    assert error(*words).startswith("give files of records, or --parallel SOURCES TARGETS")
    (tmp_path / "empty.tsv").touch()
    assert "empty.tsv is empty" in error(*words, str(tmp_path / "empty.tsv"), code=1)


def test_evaluate_says_how_a_table_was_read(file: str, tmp_path: Path) -> None:
    words = ("evaluate", *MODEL, "--greedy", "--json")
    expected = json.loads(regard(*words, file).stdout)["scores"]
    rows = "".join(f'"{target}";"{source}"\r\n' for source, target in PAIRS)
    (tmp_path / "sheet.dat").write_text(f"\ufeffItalian;English\r\n{rows}", encoding="utf-8")
    sheet = (str(tmp_path / "sheet.dat"), "--source-field", "english", "--target-field", "italian")
    assert "give format, or --format: tsv, csv" in error(*words, *sheet, code=1)
    for flags in (("--format", "csv"), ("--format", "csv", "--delimiter", ";")):
        result = regard(*words, *sheet, *flags)
        assert json.loads(result.stdout)["scores"] == expected
        assert (
            result.stderr == f"{sheet[0]}: read as CSV, delimiter ';', fields 'English' and 'Italian' of its header\n"
        )


def test_see(tmp_path: Path) -> None:
    html, png, svg, saved = (str(tmp_path / name) for name in ("a.html", "a.png", "a.svg", "a.json"))
    words = ("see", SENTENCES[0], *MODEL, "--target", SENTENCES[1], "--html", html, "--png", png, "--svg", svg)
    result = regard(*words, "--json", saved)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Questo pacchetto contiene la documentazione.\n\n")
    assert "attention" in result.stdout
    assert result.stderr == f"wrote {html}\nwrote {saved}\nwrote {png}\nwrote {svg}\n"
    assert files.load(saved).axes["source"].labels[-1] == "[end]"
    assert "pacchetto" in Path(html).read_text(encoding="utf-8")
    assert Path(png).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path(svg).read_text(encoding="utf-8")


def test_see_says_what_a_large_picture_leaves_out(tmp_path: Path) -> None:
    translator(max_tokens=600).save(tmp_path)
    words = ("see", "a " * 260, "--model", str(tmp_path), "--target", "b", "--png", str(tmp_path / "a.png"))
    assert regard(*words).stderr == f"wrote {tmp_path}/a.png: 1 cell in 2 is named\n"


def test_see_one_head_of_the_encoder() -> None:
    result = regard("see", SENTENCES[0], *MODEL, "--greedy", "--kind", "encoder", "--layer", "1", "--head", "2")
    expected = translator().see(SENTENCES[0], search=Greedy()).map("encoder", layer=1, head=2)
    assert result.stdout.endswith(f"\n\n{draw(expected)}\n")


def test_see_wrong_use() -> None:
    assert error("see", "x", "--png", "a.svg").startswith("--png a.svg: the name must end in .png")
    assert error("see").startswith("give a text, or --file FILE")
    assert "did you mean 'encoder'" in error("see", "The", *MODEL, "--kind", "encode", code=1)
    assert "expected 1 to 23: see one or a few sentences" in error("see", " ", *MODEL, code=1)


def test_info(tmp_path: Path) -> None:
    translator().save(tmp_path)
    rows = [{"step": 100, "loss": 2.5}, {"step": 200, "bleu": 31.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3')
    found = json.loads(regard("info", str(tmp_path), "--json").stdout)
    assert found["model"]["name"] == "transformer"
    assert found["weights"]["parameters"] == sum(x.numel() for x in translator().module.parameters())
    assert found["training"] == {"max_tokens": 24, "steps": 3}
    assert found["last metrics"] == {"step": 200, "loss": 2.5, "bleu": 31.25}
    text = regard("info", str(tmp_path)).stdout
    assert f"  parameters            {found['weights']['parameters']:,}\n" in text
    assert "  bleu                  31.25\n" in text
    (tmp_path / "model.safetensors").unlink()
    assert "none yet" in regard("info", str(tmp_path)).stdout
    (tmp_path / "metrics.jsonl").write_text("{]\n")
    assert "metrics.jsonl:1 is not JSON" in error("info", str(tmp_path), code=1)
