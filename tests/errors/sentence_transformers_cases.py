"""Folders of the sentence-transformers package that say what is not computed here: see `cases.py`."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import regard as rg
from regard.errors import CheckpointError, ConfigError, UnsupportedError
from regard.models.pooling import Embedding
from regard.tasks.encode import Encoder
from tests.checkpoints.published import bert, encoder, word_pieces, write_bert
from tests.errors.cases import Case

TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}
DENSE = {"in_features": 12, "out_features": 3, "activation_function": "torch.nn.modules.activation.Tanh"}


def step(kind: str, path: str = "") -> dict[str, str]:
    return {"path": path or kind, "type": f"sentence_transformers.models.{kind}"}


def loading(*steps: Any, **files: Any) -> Callable[[], object]:
    """Load a folder with these steps, and with these fields in files; `__` in a name is a folder."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            folder = write_bert(Path(name, "model"))
            (folder / "modules.json").write_text(json.dumps(steps))
            for file, fields in files.items():
                path = folder / f"{file.replace('__', '/')}.json"
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(fields))
            tensors = {"linear.weight": torch.zeros(4, 12)}
            if "Dense__config" in files:
                safetensors.torch.save_file(tensors, folder / "Dense" / "model.safetensors")
            return rg.load(folder)

    return call


def with_dense(**fields: Any) -> Callable[[], object]:
    return loading(TRANSFORMER, step("Pooling"), step("Dense"), Dense__config={**DENSE, **fields})


CASES: list[Case] = [
    (
        "sentence-first",
        loading(step("Pooling")),
        UnsupportedError,
        "modules.json: the modules Pooling are not supported; expected Transformer, Pooling, and then others",
    ),
    (
        "sentence-step",
        loading(TRANSFORMER, step("WordWeights")),
        UnsupportedError,
        "modules.json: the module sentence_transformers.models.WordWeights is not supported; expected one of",
    ),
    (
        "sentence-code",
        loading({"path": "", "type": "custom_code.Transformer"}),
        UnsupportedError,
        "modules.json: the module custom_code.Transformer is not supported; expected one of Transformer, Pooling",
    ),
    (
        "sentence-path",
        loading({**TRANSFORMER, "path": "../other"}),
        CheckpointError,
        "modules.json has the module {'path': '../other', 'type': 'sentence_transformers.models.Transformer'}",
    ),
    (
        "sentence-elsewhere",
        loading({**TRANSFORMER, "path": "0_Transformer"}),
        CheckpointError,
        "0_Transformer/config.json is missing; the folder has nothing",
    ),
    (
        "sentence-pooling",
        loading(TRANSFORMER, step("Pooling"), Pooling__config={"pooling_mode": "attention"}),
        UnsupportedError,
        "Pooling: the pooling ['attention'] is not supported; expected some of cls, max, mean",
    ),
    (
        "sentence-pooling-field",
        loading(TRANSFORMER, step("Pooling"), Pooling__config={"temperature": 3}),
        UnsupportedError,
        "config.json: unknown field temperature=3, which may change what is computed; known: pooling_mode",
    ),
    (
        "sentence-task",
        loading(TRANSFORMER, sentence_bert_config={"transformer_task": "fill-mask"}),
        UnsupportedError,
        "transformer_task='fill-mask' is not supported; expected 'feature-extraction' or None",
    ),
    (
        "sentence-length",
        loading(TRANSFORMER, sentence_bert_config={"max_seq_length": "long"}),
        CheckpointError,
        "max_seq_length='long'; expected a number of tokens above 0",
    ),
    (
        "sentence-prompt",
        loading(TRANSFORMER, config_sentence_transformers={"prompts": {"query": "q"}, "default_prompt_name": "doc"}),
        CheckpointError,
        "config_sentence_transformers.json: prompts={'query': 'q'} with default_prompt_name='doc'; expected texts by",
    ),
    (
        "sentence-similarity",
        loading(TRANSFORMER, config_sentence_transformers={"similarity_fn_name": "maxsim"}),
        UnsupportedError,
        "similarity_fn_name='maxsim'; expected cosine, dot, euclidean, manhattan",
    ),
    (
        "sentence-activation",
        with_dense(activation_function="torch.nn.modules.activation.Softplus"),
        UnsupportedError,
        "activation_function='torch.nn.modules.activation.Softplus' is not supported; expected one of torch",
    ),
    (
        "sentence-dense-size",
        with_dense(in_features="many"),
        CheckpointError,
        "config.json: no model can be built from the configuration: empty(): argument 'size' failed to unpack the",
    ),
    (
        "sentence-dense-field",
        loading(TRANSFORMER, step("Pooling"), step("Dense"), Dense__config={"in_features": 12}),
        CheckpointError,
        "Dense/config.json lacks the field 'out_features'",
    ),
    (
        "sentence-dense-tensors",
        with_dense(),
        CheckpointError,
        "model.safetensors does not match config.json beside it: Error(s) in loading state_dict for Dense: Missing",
    ),
    (
        "embed-prompts",
        lambda: encoder().embed(["a"], prompt="q", prompt_name="query"),
        ConfigError,
        "embed: got both prompt='q' and prompt_name='query'; pass only one",
    ),
    (
        "embed-prompt-name",
        lambda: Encoder(bert(), word_pieces(), embedding=Embedding(prompts={"query": "q"})).embed(
            [], prompt_name="quer"
        ),
        ConfigError,
        "embed: the checkpoint has no prompt 'quer'; did you mean 'query'?",
    ),
    (
        "embed-pooling-step",
        lambda: Encoder(bert(), word_pieces(), embedding=Embedding(steps=(torch.nn.Linear(12, 3),))).embed(
            ["a"], pooling="mean+max"
        ),
        ConfigError,
        "embed: pooling='mean+max' gives vectors of size 24, and the checkpoint's next step expects 12; use the",
    ),
]
