"""Files of a folder in the layout of the Hugging Face hub, which is not trusted: what is read lies within it."""

from pathlib import Path
from typing import Any

from regard.checkpoints.folder import read_json
from regard.errors import CheckpointError


def inside(folder: Path, path: Path) -> Path:
    """The path of a file of the folder; a link out of it is followed only where the hub's own cache makes one.

    Args:
        folder: in the hub's layout.
        path: of a file in it.

    Returns:
        The path.

    Raises:
        CheckpointError: a link to another place.
    """
    real, home = path.resolve(), folder.resolve()
    snapshot = next((x for x in (home, home.parent) if x.parent.name == "snapshots"), None)
    blobs = home if snapshot is None else snapshot.parent.parent / "blobs"
    if home not in real.parents and blobs != real.parent:
        raise CheckpointError(f"{path} is a link to {real}, outside of the folder; put a copy of the file in its place")
    return path


def settings(folder: Path, name: str) -> dict[str, Any]:
    """The fields of a file of JSON in the folder; none if there is no such file."""
    fields: dict[str, Any] = read_json(inside(folder, folder / name)) if (folder / name).is_file() else {}
    return fields
