"""Views of attention as JSON and npz files, which hold no code and are read without pickle."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regard.errors import ConfigError, DataError, RegardError
from regard.lens.view import Axis, LayerView, View

FORMAT = "regard view 1"
TENSORS = ("grid", "entropy", "distance", "key_mass", "top_keys", "top_weights")
SUFFIXES = (".json", ".npz")


def save(view: View, path: str | os.PathLike[str]) -> None:
    """Write a view.

    Args:
        view: the maps, summaries and labels.
        path: of the file; its end says the format: .npz, or .json for programs without NumPy.

    Raises:
        ConfigError: another format.
    """
    about = {
        "format": FORMAT, "title": view.title, "notes": list(view.notes),
        "axes": [{"name": x.name, "labels": list(x.labels), "special": sorted(x.special)} for x in view.axes.values()],
        "layers": [
            {"path": x.path, "rows": x.rows, "columns": x.columns, "row_edges": list(x.row_edges),
             "column_edges": list(x.column_edges), "error": x.error}
            for x in view.layers
        ],
    }  # fmt: skip
    arrays = {
        f"{i}.{name}": x.numpy() for i, layer in enumerate(view.layers) for name in TENSORS
        if (x := getattr(layer, name)) is not None
    }  # fmt: skip
    match _suffix(path):
        case ".npz":
            np.savez_compressed(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
        case _:
            plain = {name: x.tolist() for name, x in arrays.items()}
            Path(path).write_text(json.dumps({**about, "arrays": plain}), encoding="utf-8")


def load(path: str | os.PathLike[str]) -> View:
    """Read a view that `save` wrote.

    Args:
        path: of the file.

    Returns:
        The view, without attributions.

    Raises:
        ConfigError: another format.
        DataError: a file that cannot be read, or is damaged.
    """
    suffix = _suffix(path)
    try:
        if suffix == ".npz":
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays: dict[str, Any] = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop("about").tobytes())
        else:
            about = json.loads(Path(path).read_text(encoding="utf-8"))
            arrays = {name: np.asarray(x) for name, x in about["arrays"].items()}
        return _view(about, arrays)
    except (KeyError, ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile, RegardError) as error:
        raise DataError(f"{os.fspath(path)} holds no view of attention: {error!r:.200}") from error


def _view(about: dict[str, Any], arrays: dict[str, Any]) -> View:
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}; expected {FORMAT!r}")
    axes = {
        x["name"]: Axis(name=x["name"], labels=[str(y) for y in x["labels"]], special=frozenset(x["special"]))
        for x in about["axes"]
    }
    layers = []
    for i, x in enumerate(about["layers"]):
        tensors = {name: torch.from_numpy(arrays[f"{i}.{name}"]) for name in TENSORS if f"{i}.{name}" in arrays}
        floats = {name: y if name == "top_keys" else y.float() for name, y in tensors.items()}
        layers.append(LayerView(**x, **floats))
    return View(title=str(about["title"]), axes=axes, layers=layers, notes=[str(x) for x in about["notes"]])


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"view: {os.fspath(path)!r} ends in {suffix!r}; expected {' or '.join(SUFFIXES)}")
    return suffix
