"""Access to the files of a checkpoint folder, which must lie inside of it."""

from pathlib import Path
from typing import Any

from regard.checkpoints.folder import read_json
from regard.errors import CheckpointError


def check_inside(folder: Path, path: Path) -> Path:
    """Raise unless a file lies inside of a folder, or is a symbolic link within the hub's cache.

    Args:
        folder: in the hub's layout.
        path: of a file in it.

    Returns:
        The path.

    Raises:
        CheckpointError: a symbolic link to somewhere else.
    """
    target, root = path.resolve(), folder.resolve()
    snapshot = next((x for x in (root, root.parent) if x.parent.name == "snapshots"), None)
    blobs = root if snapshot is None else snapshot.parent.parent / "blobs"
    if root not in target.parents and blobs != target.parent:
        raise CheckpointError(f"{path} is a link to {target}, outside of the folder; replace it by a copy of the file")
    return path


def read_fields(folder: Path, name: str) -> dict[str, Any]:
    """The fields of a JSON file in the folder; empty if there is no such file."""
    fields: dict[str, Any] = read_json(check_inside(folder, folder / name)) if (folder / name).is_file() else {}
    return fields
