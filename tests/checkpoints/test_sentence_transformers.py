"""Folders of the sentence-transformers package, as its versions write them: the vectors that their files describe."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

import regard as rg
from regard.cli.main import main
from regard.models.pooling import POOLINGS, Embedding
from tests.checkpoints.published import WORDS, bert, word_pieces, write_bert

SIZE = 12
TEXTS = ["the cat sat on the mat .", "a", "cats"]
OLD = {
    "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens", "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}  # fmt: skip
MODULES_OF_6 = {
    "Transformer": "base.modules.transformer", "Dense": "base.modules.dense", "Normalize": "base.modules.normalize",
    "Pooling": "sentence_transformer.modules.pooling", "LayerNorm": "sentence_transformer.modules.layer_norm",
    "Dropout": "sentence_transformer.modules.dropout",
}  # fmt: skip


def jot(path: Path, plain: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(plain))


def write(
    folder: Path,
    modes: Sequence[str] = ("mean",),
    steps: Sequence[tuple[str, dict[str, Any], dict[str, torch.Tensor]]] = (),
    *,
    version: int,
    transformer: str = "",
    **more: Any,
) -> Path:
    """A folder as a version writes it; `more` is of config_sentence_transformers.json and of the pooling."""
    shutil.rmtree(folder, ignore_errors=True)
    write_bert(folder / transformer)
    kinds = ["Transformer", "Pooling", *(kind for kind, *_ in steps)]
    places = [transformer, "1_Pooling", *(f"{i}_{kind}" for i, (kind, *_) in enumerate(steps, start=2))]
    where = MODULES_OF_6 if version >= 6 else dict.fromkeys(kinds, "models")
    jot(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.{where[kind]}.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places, strict=True))
    ])  # fmt: skip
    of_pooling = {name: more.pop(name) for name in ("include_prompt",) if name in more}
    if version >= 6:
        of_pooling |= {"embedding_dimension": SIZE, "pooling_mode": modes[0] if len(modes) == 1 else [*modes]}
    else:
        of_pooling |= {"word_embedding_dimension": SIZE, **{OLD[mode]: mode in modes for mode in OLD}}
    jot(folder / "1_Pooling" / "config.json", of_pooling)
    for place, (_, fields, tensors) in zip(places[2:], steps, strict=True):
        jot(folder / place / "config.json", fields)
        if tensors:
            safetensors.torch.save_file(tensors, folder / place / "model.safetensors")
    versions = {"sentence_transformers": f"{version}.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
    jot(folder / "config_sentence_transformers.json", {"__version__": versions, **more})
    return folder


def hidden(text: str, longest: int = 11) -> torch.Tensor:
    """The vectors (L, D) of a text's tokens, marks included, by the model alone."""
    ids = ids_of(text)[: longest - 1]
    with torch.no_grad():
        return bert()(torch.tensor([[*ids, WORDS.index("[SEP]")]])).hidden[0]


def ids_of(text: str) -> list[int]:
    """[CLS] and the pieces of a text."""
    return [WORDS.index("[CLS]"), *word_pieces().encode(text)]


def pooled(x: torch.Tensor, mode: str, skipped: int = 0) -> torch.Tensor:
    """The vector of a text from those of its tokens, as the paper or the package's page says it."""
    places = range(skipped, len(x))
    if mode == "cls":
        return x[skipped]
    if mode == "lasttoken":
        return x[-1]
    if mode == "max":
        return torch.stack([x[i] for i in places]).max(0).values
    weights = [i + 1 if mode == "weightedmean" else 1 for i in places]
    total = sum(weight * x[i] for weight, i in zip(weights, places, strict=True))
    return total / (len(weights) ** 0.5 if mode == "mean_sqrt_len_tokens" else sum(weights))


def check(found: torch.Tensor, expected: Sequence[torch.Tensor]) -> None:
    torch.testing.assert_close(found, torch.stack(list(expected)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", [2, 6])
@pytest.mark.parametrize(
    "modes", [*((mode,) for mode in POOLINGS), ("cls", "max", "mean"), ("mean", "lasttoken")], ids="+".join
)
def test_poolings(modes: tuple[str, ...], version: int, tmp_path: Path) -> None:
    encoder = rg.load(write(tmp_path / "model", modes, version=version))
    assert encoder.pooling == "+".join(modes)
    check(
        encoder.embed(TEXTS, normalize=False),
        [torch.cat([pooled(hidden(text), mode) for mode in modes]) for text in TEXTS],
    )
    assert encoder.embed(TEXTS).norm(dim=1).tolist() == pytest.approx([1.0] * len(TEXTS))
    assert encoder.embed([]).shape == (0, SIZE * len(modes))
    other = "max" if modes == ("mean",) else "mean"
    check(encoder.embed(TEXTS, pooling=other, normalize=False), [pooled(hidden(text), other) for text in TEXTS])


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_lengths(place: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", version=2, transformer=place)
    home = folder / place
    if place:
        jot(folder / "config.json", {"__version__": "0.3.9"})
    for name, fields in {
        "sentence_bert_config.json": {"max_seq_length": 5, "do_lower_case": False},
        "sentence_roberta_config.json": {"max_seq_length": 5},
        "tokenizer_config.json": {"model_max_length": 5, "mask_token": "[MASK]"},
    }.items():
        jot(home / name, fields)
        found = rg.load(folder).embedded(TEXTS, normalize=False)
        check(found.vectors, [pooled(hidden(text, 5), "mean") for text in TEXTS])
        assert found.cut == [0]
        (home / name).unlink()
    for longest in (None, 99, 10**30):
        jot(home / "sentence_bert_config.json", {"max_seq_length": None})
        jot(home / "tokenizer_config.json", {"model_max_length": longest})
        check(rg.load(folder).embed(TEXTS, normalize=False), [pooled(hidden(text), "mean") for text in TEXTS])


def test_case(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", version=2)
    jot(folder / "tokenizer_config.json", {"do_lower_case": False})
    lower, upper = ("the cat sat", "THE Cat SAT")
    plain = rg.load(folder)
    assert not torch.equal(plain.embed([upper]), plain.embed([lower]))
    jot(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    encoder = rg.load(folder)
    for _ in range(2):
        assert torch.equal(encoder.embed([upper]), plain.embed([lower]))
        assert encoder.see(upper).source == encoder.see(lower).source
        encoder.save(tmp_path / "own")
        encoder = rg.load(tmp_path / "own")


PROMPTS = {"query": "the cat ", "document": ""}


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("mode", POOLINGS)
def test_prompts(mode: str, include: bool, tmp_path: Path) -> None:
    more = {"include_prompt": include, "prompts": PROMPTS}
    encoder = rg.load(write(tmp_path / "model", (mode,), version=6, default_prompt_name="query", **more))
    assert encoder.prompts == PROMPTS
    said: dict[str, dict[str, str]] = {"the cat ": {}, "": {"prompt": ""}, "a mat ": {"prompt": "a mat "}}
    for prompt, how in said.items():
        skipped = 0 if include or not prompt else len(ids_of(prompt))
        check(
            encoder.embed(TEXTS, normalize=False, **how),
            [pooled(hidden(prompt + text), mode, skipped) for text in TEXTS],
        )
    named = encoder.embed(TEXTS, prompt_name="document")
    assert torch.equal(named, encoder.embed(TEXTS, prompt=""))
    encoder = rg.load(write(tmp_path / "model", (mode,), version=6, default_prompt_name=None, **more))
    assert torch.equal(encoder.embed(TEXTS), named)


def dense(
    inputs: int, outputs: int, activation: str, **more: Any
) -> tuple[str, dict[str, Any], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(inputs * outputs)
    tensors = {"linear.weight": torch.randn(outputs, inputs, generator=generator)}
    if more.get("bias", True):
        tensors["linear.bias"] = torch.randn(outputs, generator=generator)
    if more.get("use_residual") and inputs != outputs:
        tensors["residual.weight"] = torch.randn(outputs, inputs, generator=generator)
    fields = {"in_features": inputs, "out_features": outputs, "activation_function": activation, "bias": True, **more}
    return "Dense", fields, tensors


@pytest.mark.parametrize("version", [5, 6])
def test_steps(version: int, tmp_path: Path) -> None:
    first = dense(SIZE, 7, "torch.nn.modules.activation.Tanh")
    second = dense(7, 5, "torch.nn.modules.linear.Identity", bias=False, use_residual=True)
    norm = {"norm.weight": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), "norm.bias": torch.arange(5.0)}
    steps = [
        first,
        ("Dropout", {"dropout": 0.4}, {}),
        second,
        ("LayerNorm", {"dimension": 5}, norm),
        ("Normalize", {}, {}),
    ]
    folder = write(tmp_path / "model", steps=steps, version=version, similarity_fn_name="dot")
    encoder = rg.load(folder)

    def by_hand(text: str) -> torch.Tensor:
        x = torch.tanh(first[2]["linear.weight"] @ pooled(hidden(text), "mean") + first[2]["linear.bias"])
        x = (second[2]["linear.weight"] + second[2]["residual.weight"]) @ x
        x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * norm["norm.weight"] + norm["norm.bias"]
        return x / x.norm()

    expected = [by_hand(text) for text in TEXTS]
    check(encoder.embed(TEXTS, normalize=False), expected)
    assert encoder.embed([]).shape == (0, 5)
    encoder.save(tmp_path / "own")
    rg.export_hf(encoder, tmp_path / "exported")
    for again in (rg.load(tmp_path / "own"), rg.load(tmp_path / "exported")):
        check(again.embed(TEXTS), expected)
        assert again.embedding.similarity == "dot"


def test_all_that_is_said_goes_out_and_comes_back(tmp_path: Path) -> None:
    more = {
        "include_prompt": False,
        "prompts": PROMPTS,
        "default_prompt_name": "query",
        "similarity_fn_name": "euclidean",
    }
    folder = write(tmp_path / "model", ("max", "mean"), version=6, **more)
    jot(folder / "sentence_bert_config.json", {"max_seq_length": 7})
    encoder = rg.load(folder)
    assert encoder.embedding == Embedding(
        pooling="max+mean", include_prompt=False, max_length=7, prompts=PROMPTS, default_prompt_name="query",
        similarity="euclidean",
    )  # fmt: skip
    encoder.save(tmp_path / "own")
    rg.export_hf(encoder, tmp_path / "exported")
    for place in ("own", "exported"):
        again = rg.load(tmp_path / place)
        assert again.embedding == encoder.embedding
        assert torch.equal(again.embed(TEXTS), encoder.embed(TEXTS))


def test_vectors_have_length_1_where_they_are_compared_by_cosines(tmp_path: Path) -> None:
    for similarity, unit in {None: True, "cosine": True, "dot": False, "manhattan": False}.items():
        encoder = rg.load(write(tmp_path / "model", version=5, similarity_fn_name=similarity))
        assert torch.equal(encoder.embed(TEXTS), encoder.embed(TEXTS, normalize=unit))
        assert not torch.allclose(encoder.embed(TEXTS), encoder.embed(TEXTS, normalize=not unit))


def test_the_hubs_own_cache_has_links_in_folders_too(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "models--x" / "snapshots" / "0123", ("max",), version=2, transformer="0_Transformer")
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for i, path in enumerate(sorted(path for path in snapshot.rglob("*") if path.is_file())):
        path.rename(blobs / str(i))
        path.symlink_to(blobs / str(i))
    assert rg.load(snapshot).pooling == "max"


def test_the_verbs(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "model", version=6, prompts=PROMPTS, similarity_fn_name="cosine"))
    encoder = rg.load(folder)

    def run(*words: str) -> str:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    def vector(*words: str) -> list[float]:
        return json.loads(run("embed", "a", "--model", folder, *words))["embedding"]

    assert vector("--prompt-name", "query") == encoder.embed(["a"], prompt_name="query")[0].tolist()
    assert vector("--prompt", "the ") == encoder.embed(["a"], prompt="the ")[0].tolist()
    assert (
        vector("--pooling", "cls+max", "--raw") == encoder.embed(["a"], pooling="cls+max", normalize=False)[0].tolist()
    )
    run("embed", "a", "--model", folder, "--npy", str(tmp_path / "x.npy"), "--prompt-name", "query")
    assert np.array_equal(np.load(tmp_path / "x.npy"), encoder.embed(["a"], prompt_name="query").numpy())
    said = json.loads(run("info", folder, "--json"))
    assert said["published model"] == "bert"
    assert said["verbs"] == "embed, fill, see"
    assert said["weights"]["parameters"] == sum(
        x.numel() for x in safetensors.torch.load_file(Path(folder, "model.safetensors")).values()
    )
    assert said["embedding"]["prompts"] == PROMPTS
    assert "bert" in run("info", folder)
