"""Views of attention as JSON and npz files, which hold no code and are read without pickle; pages hold them too."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regard.errors import ConfigError, DataError, RegardError
from regard.lens.view import Attribution, Axis, LayerView, View

FORMAT = "regard view 1"
TENSORS = ("grid", "entropy", "distance", "key_mass", "top_keys", "top_weights")
SUFFIXES = (".json", ".npz")
MAP_STEPS = 2**16 - 1  # of a compact map, from its least to its largest number
SUMMARY_STEPS = 2**12 - 1  # of a compact summary: more would not compress

Arrays = Mapping[str, np.ndarray[Any, Any]]


def save(view: View, path: str | os.PathLike[str]) -> None:
    """Write a view.

    Args:
        view: the maps, summaries, labels and attributions.
        path: of the file; its end says the format: .npz, or .json for programs without NumPy.

    Raises:
        ConfigError: another format.
    """
    match _suffix(path):
        case ".npz":
            Path(path).write_bytes(npz(view))
        case _:
            plain = {name: x.tolist() for name, x in _arrays(view).items()}
            Path(path).write_text(json.dumps({**_about(view), "arrays": plain}), encoding="utf-8")


def npz(view: View, *, compact: bool = False) -> bytes:
    """A view as the content of an npz file.

    Args:
        view: the maps, summaries, labels and attributions.
        compact: write whole numbers of 16 bits in place of floats: maps in 65,535 steps from the least to the largest
            number, summaries in 4,095.
    """
    about, arrays = _about(view), dict(_arrays(view))
    if compact:
        about["scales"] = {}
        for name, x in arrays.items():
            field = name.partition(".")[2]
            if field == "top_keys":
                largest = int(x.max(initial=0))
                arrays[name] = x.clip(0).astype(np.uint16 if largest < 2**16 else np.uint32)
            else:
                low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
                step = (high - low) / (MAP_STEPS if field == "grid" else SUMMARY_STEPS) or 1.0
                about["scales"][name] = [low, step]
                arrays[name] = ((x - low) / step).round().astype(np.uint16)
    file = io.BytesIO()
    np.savez_compressed(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    return file.getvalue()


def load(path: str | os.PathLike[str]) -> View:
    """Read a view that `save` or a page wrote.

    Args:
        path: of the file.

    Returns:
        The view.

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


def _about(view: View) -> dict[str, Any]:
    """All of a view but its arrays."""
    return {
        "format": FORMAT, "title": view.title, "notes": list(view.notes),
        "axes": [
            {"name": x.name, "kind": x.kind, "labels": list(x.labels), "special": sorted(x.special)}
            for x in view.axes.values()
        ],
        "layers": [
            {"path": x.path, "rows": x.rows, "columns": x.columns, "row_edges": list(x.row_edges),
             "column_edges": list(x.column_edges), "error": x.error}
            for x in view.layers
        ],
        "attributions": [
            {"method": x.method, "axis": x.axis, "target": x.target, "trust": dict(x.trust),
             "scores": x.scores.tolist()}
            for x in view.attributions
        ],
    }  # fmt: skip


def _arrays(view: View) -> Arrays:
    """The arrays of a view by number of the layer and name."""
    return {
        f"{i}.{name}": x.detach().cpu().numpy() for i, layer in enumerate(view.layers) for name in TENSORS
        if (x := getattr(layer, name)) is not None
    }  # fmt: skip


def _view(about: dict[str, Any], arrays: dict[str, Any]) -> View:
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}; expected {FORMAT!r}")
    axes = {
        x["name"]: Axis(
            name=x["name"], labels=[str(y) for y in x["labels"]], special=frozenset(x["special"]), kind=str(x["kind"])
        )
        for x in about["axes"]
    }
    for name, (low, step) in about.get("scales", {}).items():
        arrays[name] = low + step * arrays[name].astype(np.float32)
    layers = []
    for i, x in enumerate(about["layers"]):
        tensors = {
            name: torch.from_numpy(arrays[f"{i}.{name}"].astype(np.int64 if name == "top_keys" else np.float32))
            for name in TENSORS
            if f"{i}.{name}" in arrays
        }
        if "scales" in about and "top_keys" in tensors:
            tensors["top_keys"][tensors["top_weights"] == 0] = -1
        layers.append(LayerView(**x, **tensors))
    attributions = [Attribution(**{**x, "scores": torch.tensor(x["scores"])}) for x in about["attributions"]]
    notes = [str(x) for x in about["notes"]]
    return View(title=str(about["title"]), axes=axes, layers=layers, attributions=attributions, notes=notes)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"view: {os.fspath(path)!r} ends in {suffix!r}; expected {' or '.join(SUFFIXES)}")
    return suffix
