"""The model that the package ships."""

from pathlib import Path

from regard.errors import CheckpointError

SHIPPED_NAME = "en-it"
SHIPPED = Path(__file__).parents[1] / "shipped" / SHIPPED_NAME


def model_folder(model: str | Path | None) -> Path:
    """The folder of a model; None and "en-it" name the model that the package ships.

    A folder called en-it in the working directory goes before the shipped model.

    Raises:
        CheckpointError: the shipped model is asked for, and this copy of regard has none.
    """
    if model is not None and (str(model) != SHIPPED_NAME or Path(model).is_dir()):
        return Path(model)
    if not SHIPPED.is_dir():
        raise CheckpointError(f"this copy of regard ships no model ({SHIPPED} is missing); name a folder of your own")
    return SHIPPED
