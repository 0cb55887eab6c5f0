"""The model that is shipped with the package."""

from pathlib import Path

from regard.errors import CheckpointError

SHIPPED_NAME = "en-it"
SHIPPED = Path(__file__).parents[1] / "shipped" / SHIPPED_NAME


def model_folder(model: str | Path | None) -> Path:
    """The folder of a model; None and "en-it" stand for the shipped model.

    A folder en-it in the working directory takes precedence over the shipped model.

    Raises:
        CheckpointError: the shipped model is missing in this installation.
    """
    if model is not None and (str(model) != SHIPPED_NAME or Path(model).is_dir()):
        return Path(model)
    if not SHIPPED.is_dir():
        raise CheckpointError(f"this installation of regard has no shipped model: {SHIPPED} is missing; pass a folder")
    return SHIPPED
