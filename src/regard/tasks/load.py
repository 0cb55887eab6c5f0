"""`regard.load`: a trained or published model from its folder, or by its name on the hub."""

from pathlib import Path
from typing import Any

import torch

from regard.attention.check import show
from regard.checkpoints import folder as folders
from regard.checkpoints import hub
from regard.checkpoints.device import device_of
from regard.checkpoints.shipped import model_folder
from regard.errors import CheckpointError, ConfigError
from regard.layers.quantization import quantize_maps
from regard.layers.quantized_linear import is_quantized
from regard.tasks.registry import JOBS, runner_class
from regard.tasks.runner import Runner

DTYPES = ("float32", "int8")


def load(model: str | Path | None = None, *, device: str | torch.device = "cpu", dtype: str | None = None) -> Any:
    """Load a trained or published model as a runner, which has the methods of its job.

    Args:
        model: folder of a run, or one that `save` wrote; folder of a published checkpoint in the layout of the
            Hugging Face hub; name on the hub, which needs huggingface_hub and the network; "en-it" or None for the
            model that the package ships, unless there is a folder of that name.
        device: "cpu", "cuda", "cuda:0" (a GPU by number), "mps", or "auto" for a CUDA GPU if there is one.
        dtype: "int8" quantizes linear maps and token embeddings to int8, for inference on the CPU; "float32"; by
            default that of the folder.

    Returns:
        A runner with `.module`, `.tokenizer`, `.config` and the methods of its job, such as a `Translator` with
        `.translate([...])`, `.see(...)`, `.evaluate(...)`, `.save(...)`.

    Raises:
        CheckpointError: a folder or file that is missing, damaged, or of another format.
        UnsupportedError: a published configuration with a setting that regard does not support.
        ConfigError: an unavailable device, an unknown dtype, or float32 of a folder in int8.
    """
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"load: dtype={show(dtype)}; expected {' or '.join(map(repr, DTYPES))}, or None")
    target = device_of(device)  # an unavailable device fails before anything is read
    folder = model_folder(model)
    if isinstance(model, str) and hub.HUB_NAME.fullmatch(model) and not folder.parent.is_dir():
        folder = hub.download(model)
    if hub.is_hub(folder):
        job, module, tokenizer, config = hub.load_hub(folder)
    else:
        job = folders.read_config(folder)["task"] if folder.is_dir() else ""
        if job and runner_class(job) is None:
            raise CheckpointError(
                f"{folder / folders.CONFIG} has task {job!r}; expected one of {', '.join(JOBS)}; register a task of "
                "your own with regard.register_task"
            )
        module, tokenizer, config = folders.read(folder)
    if dtype == "float32" and any(map(is_quantized, module.modules())):
        raise ConfigError(
            f"load: dtype='float32' of {folder}, which has int8 weights; load the float32 folder that it was made from"
        )
    if dtype == "int8":
        quantize_maps(module)
    runner: Runner = runner_class(job)(module.to(target), tokenizer, config)
    runner.read_extras(folder)
    return runner
