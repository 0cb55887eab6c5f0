"""`regard.load`: a trained or published model from its folder, or by its name on the hub."""

from pathlib import Path
from typing import Any

from regard.errors import CheckpointError
from regard.trained import folder as folders
from regard.trained import hub
from regard.trained import translator as shipped
from regard.trained.encoder import Encoder
from regard.trained.families import JOBS


def load(model: str | Path | None = None) -> Any:
    """A model with its tokenizer, as one object that has its jobs as methods.

    Args:
        model: the folder of a run, or that `save` wrote; a folder of a published checkpoint, in the layout of the
            Hugging Face hub; a name on the hub, which needs huggingface_hub and the network; None for the model that
            the package ships.

    Returns:
        An object with `.module`, `.tokenizer`, `.config`, and its jobs, such as a `Translator` with
        `.translate([...])`, `.see(...)`, `.evaluate(...)`, `.save(...)`.

    Raises:
        CheckpointError: a folder or file that is missing, damaged, or of another format.
        UnsupportedError: a published configuration that says something that regard does not compute.
    """
    if model is None and not shipped.SHIPPED.is_dir():
        raise CheckpointError(
            f"this copy of regard ships no model ({shipped.SHIPPED} is missing); name a folder of your own"
        )
    folder = Path(shipped.SHIPPED if model is None else model)
    if isinstance(model, str) and hub.HUB_NAME.fullmatch(model) and not folder.parent.is_dir():
        folder = hub.download(model)
    if hub.is_hub(folder):
        return hub.load_hub(folder)
    module, tokenizer, config = folders.read(folder)
    job = JOBS[config["task"]]
    if job is Encoder and (layout := hub.layout_of(folder)) is not None:
        return Encoder(module, tokenizer, config, embedding=layout.embedding)
    return job(module, tokenizer, config)
