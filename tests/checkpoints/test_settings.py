"""Every field that published folders have is read, refused by name or irrelevant; and what is read is computed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.checkpoints import generation
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.settings import GENERATION, config_uses, generation_uses, read_settings
from regard.errors import UnsupportedError
from regard.models.text_encoder import TextEncoder
from tests.checkpoints.language_models import byte_level, gpt2_folder
from tests.checkpoints.published import marian
from tests.structure import checkpoints_table

transformers = pytest.importorskip("transformers")

TEXTS = ["The library", "reads"]
SMALL = {"vocab_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "pad_token_id": 0}
# Small models of the families: the package's class, and the sizes; all else has its default.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (f"{title}ForMaskedLM", {**SMALL, "intermediate_size": 24, "max_position_embeddings": 12})
        for name, title in (("bert", "Bert"), ("roberta", "Roberta"), ("xlm-roberta", "XLMRoberta"))
    },
    "distilbert": ("DistilBertForMaskedLM", {
        "vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 12,
    }),
    "gpt2": ("GPT2LMHeadModel", {
        "vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12, "bos_token_id": 1,
        "eos_token_id": 2,
    }),
    **{
        name: (f"{name.capitalize()}ForCausalLM", {
            **SMALL, "intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 12,
            "eos_token_id": 2,
        })
        for name in ("llama", "mistral", "qwen2")
    },
    "marian": ("MarianMTModel", {
        "vocab_size": 40, "decoder_vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "pad_token_id": 39, "decoder_start_token_id": 39,
    }),
    "pegasus": ("PegasusForConditionalGeneration", {
        "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    }),
    "t5": ("T5ForConditionalGeneration", {
        "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2,
    }),
}  # fmt: skip


def config_of(name: str) -> Any:
    """The package's configuration class of a family."""
    return transformers.CONFIG_MAPPING[name]


def write(folder: Path, name: str, **changes: Any) -> Any:
    """A random small model of theirs as a folder, whose config.json has nothing but what differs from defaults."""
    title, sizes = MODELS[name]
    torch.manual_seed(0)
    config = config_of(name)(**sizes)
    model = getattr(transformers, title)(config).eval()
    with torch.no_grad():
        for part in model.modules():
            for parameter in () if "Sinusoidal" in type(part).__name__ else part.parameters(recurse=False):
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / GENERATION).unlink(missing_ok=True)
    fields = {"model_type": name, **sizes, **changes}
    (folder / "config.json").write_text(json.dumps(fields))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_every_field_of_a_configuration_is_classified(name: str) -> None:
    theirs = config_of(name)
    fields = {*theirs().to_dict(), *(field.name for field in dataclasses.fields(theirs)), *theirs.attribute_map}
    known = {*config_uses(name), *generation_uses()}
    assert sorted(field for field in fields - known if not field.startswith("_")) == []


def test_every_field_of_generation_is_classified_once() -> None:
    theirs = transformers.GenerationConfig()
    fields = {*vars(theirs), *theirs.to_dict(), *theirs._get_default_generation_params()}
    assert sorted(field for field in fields - {*generation_uses()} if not field.startswith("_")) == []
    tables = [generation.READ, generation.SUPPORTED, generation.SUPPORTED_IN_SAMPLING, generation.IRRELEVANT]
    assert len(generation_uses()) == sum(map(len, tables))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_field_is_in_one_table(name: str) -> None:
    fields = FAMILIES[name].fields
    tables = [fields.read, fields.supported, fields.irrelevant, fields.aliases]
    assert len(config_uses(name)) == sum(map(len, tables))


def test_the_page_holds_the_tables() -> None:
    found = checkpoints_table.between(checkpoints_table.PAGE.read_text(encoding="utf-8"))
    assert found == checkpoints_table.table(), "run: python -m tests.structure.checkpoints_table"


@pytest.mark.parametrize("name", MODELS)
def test_fields_that_are_missing_have_the_packages_defaults(name: str, tmp_path: Path) -> None:
    theirs = write(tmp_path, name)
    ours = rg.load(tmp_path).module
    tokens = torch.randint(3, 39, (2, 7))
    with torch.no_grad():
        given = {"decoder_input_ids": tokens[:, :4]} if theirs.config.is_encoder_decoder else {}
        expected = theirs(tokens, **given).logits
        found = ours(tokens, None, tokens[:, :4]) if given else ours(tokens)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_a_field_by_its_other_name(name: str, tmp_path: Path) -> None:
    for alias, field in FAMILIES[name].fields.aliases.items():
        theirs = write(tmp_path, name)
        path = tmp_path / "config.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, alias: fields.pop(field)}))
        assert transformers.AutoConfig.from_pretrained(tmp_path).to_dict()[field] == theirs.config.to_dict()[field]
        assert read_settings(tmp_path)[field] == getattr(theirs.config, field)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_nobody_knows_is_refused_by_name(name: str, tmp_path: Path) -> None:
    def said(**fields: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": name, **fields}))
        read_settings(tmp_path)

    said(_private=1, residual_multiplier=None, num_beams=4)
    for field, x in {"residual_multiplier": 0.2, "use_alibi": False, "pooling": ""}.items():
        with pytest.raises(UnsupportedError, match=f"config.json: unknown field {field}="):
            said(**{field: x})
    (tmp_path / GENERATION).write_text(json.dumps({"tempo": 1}))
    if issubclass(FAMILIES[name].module, TextEncoder):
        said()  # nothing of it is asked
    else:
        with pytest.raises(UnsupportedError, match=f"{GENERATION}: unknown field tempo=1"):
            said()


def test_the_file_of_generation_goes_before_config_json(tmp_path: Path) -> None:
    folder = marian(tmp_path)
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    said = {"num_beams": 3, "max_length": 7, "no_repeat_ngram_size": 2, "forced_eos_token_id": 2}
    path.write_text(json.dumps({**fields, **said}))
    assert rg.load(folder).generation_config().search == rg.Beam(3)
    assert rg.load(folder).generation_config().constraints == rg.Constraints(no_repeat_ngram_size=2, forced_eos=2)
    (folder / GENERATION).write_text(json.dumps({"max_length": 9, "eos_token_id": None}))
    found = rg.load(folder)
    assert found.generation_config() == generation.GenerationConfig(max_length=9)
    assert found.module.vocabulary.eos == fields["eos_token_id"]


SAID: list[dict[str, Any]] = [
    {"eos_token_id": 5},
    {"eos_token_id": [5, 0, 63, 100], "max_new_tokens": 20},
    {"max_length": 12, "min_length": 11},
    {"max_new_tokens": 7, "max_length": 3},
    {"repetition_penalty": 1.3, "max_new_tokens": 12},
    {"no_repeat_ngram_size": 2, "max_new_tokens": 12},
    {"bad_words_ids": [[66], [80, 80]], "suppress_tokens": [67, 68], "max_new_tokens": 12},
    {"num_beams": 3, "length_penalty": 0.3, "early_stopping": True, "max_new_tokens": 9, "eos_token_id": [0, 80, 90]},
    {"num_beams": 4, "num_return_sequences": 2, "renormalize_logits": True, "min_new_tokens": 3, "max_new_tokens": 6},
    {"temperature": 0.3, "top_p": 0.2, "typical_p": 0.4, "max_new_tokens": 6},  # without do_sample these say nothing
]


@pytest.mark.parametrize("said", SAID, ids=str)
def test_a_language_model_goes_on_as_its_file_says(said: dict[str, Any], tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    (folder / GENERATION).write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, **said}))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    ours = rg.load(folder)
    more = {} if {"max_length", "max_new_tokens"} & {*said} else {"max_new_tokens": 15}
    for text, found in zip(TEXTS, ours.complete(TEXTS, **more), strict=True):
        prompt = torch.tensor([byte_level().encode(text)])
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **more)
        ends = {ours.module.vocabulary.eos, *ours.module.vocabulary.more_eos}
        for row, one in zip(expected[:, prompt.shape[1] :].tolist(), found.candidates, strict=True):
            end = next((i for i, token in enumerate(row) if token in ends), len(row))
            assert one.tokens == row[:end]
            assert (one.end == "end") == (end < len(row))


def test_a_language_model_draws_as_its_file_says(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    fields = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "min_p": 0.1, "stop_strings": ["a", "e"]}
    (folder / GENERATION).write_text(json.dumps(fields))
    found = rg.load(folder)
    assert found.generation_config().search == rg.Sample(temperature=0.7, top_k=50, top_p=0.8, min_p=0.1)
    assert len({str(found.complete(["The"])[0]) for _ in range(20)}) > 1
    for one in found.complete(TEXTS * 10):
        assert not set("ae") & set(one.text)
    (folder / GENERATION).write_text(json.dumps({**fields, "top_k": 0, "stop_strings": "x"}))
    found = rg.load(folder)
    assert found.generation_config().search == rg.Sample(temperature=0.7, top_p=0.8, min_p=0.1)
    assert found.generation_config().stop == ("x",)
    assert found.generation_config(search=rg.Greedy()).search == rg.Greedy()


def test_a_language_models_task(tmp_path: Path) -> None:
    folder = gpt2_folder(tmp_path / "gpt2")
    path = folder / "config.json"
    tasks = {"text-generation": {"num_beams": 2, "max_length": 9}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "task_specific_params": tasks}))
    found = rg.load(folder)
    [one] = found.complete(["reads"], task="text-generation")
    assert len(byte_level().encode("reads")) + len(one.candidates[0].tokens) <= 9
    assert one == found.complete(["reads"], search=rg.Beam(2), max_new_tokens=9 - len(byte_level().encode("reads")))[0]
