"""Run file `run.json`: the options that a run was started with, and its planned length.

A run resumes with the same options. The paths of its records may change, since the records themselves are compared, and
so may its length, since a run can be extended.
"""

import json
from pathlib import Path
from typing import Any, final

from regard.checkpoints import folder as folders
from regard.errors import CheckpointError, ConfigError
from regard.train.options import TrainOptions, to_plain

RUN_FILE, FORMER_RUN_FILE = "run.json", "plan.json"  # the latter of runs started before version 0.1
FREE = ("out", "threads", "tensorboard")  # options that are not stored
RECORDS = ("files", "parallel", "valid")
LENGTH = ("minutes", "steps", "epochs")
PATIENCE = "patience"


@final
class RunFile:
    """Options that a run was started with, and its current ones.

    Args:
        folder: folder of the run, created if missing.
        options: current options.

    Raises:
        ConfigError: options that differ and must not, or a folder that cannot be created.
        CheckpointError: a run file that cannot be read.
    """

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        self.folder = folder
        self.options = {name: x for name, x in to_plain(options).items() if name not in FREE}
        self.values = self._read(options.out)
        before: dict[str, Any] = self.values["options"]
        names = sorted(before.keys() | self.options.keys())
        changed = [name for name in names if before.get(name) != self.options.get(name)]
        self.has_new_length = any(name in LENGTH for name in changed)
        self.is_changed = self.has_new_length or PATIENCE in changed
        if fixed := [name for name in changed if name not in (*RECORDS, *LENGTH, PATIENCE)]:
            differing = ", ".join(f"{n} was {before.get(n)!r}, now {self.options.get(n)!r}" for n in fixed)
            raise ConfigError(
                f"{folder} was started with other options ({differing}); a run that resumes may change only "
                f"{', '.join(LENGTH)} and {PATIENCE}: give the other options as they were, or another --out, or "
                f"fine-tune the model with --from {folder}"
            )

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended, with the length that the options name now."""
        return bool(self.values.get("finished")) and not self.is_changed

    def get(self, name: str, default: Any) -> Any:
        """Value by name, such as the planned number of steps."""
        return self.values.get(name, default)

    def put(self, *, write: bool = True, **values: Any) -> None:
        """Set values by name and write them to the file, with the current options."""
        self.values |= {"options": self.options, **values}
        if write:
            text = json.dumps(self.values, indent=1) + "\n"
            folders.write_all(self.folder, {RUN_FILE: lambda path: path.write_text(text, encoding="utf-8")})

    def _read(self, out: str) -> dict[str, Any]:
        path = self.folder / RUN_FILE
        if not path.exists() and (self.folder / FORMER_RUN_FILE).exists():
            path = self.folder / FORMER_RUN_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            values = json.loads(path.read_bytes()) if path.exists() else {"options": self.options}
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON ({error}); remove {self.folder} to start again") from error
        except OSError as error:
            raise ConfigError(
                f"out={out!r} cannot be created or read: {error.strerror}; give another folder"
            ) from error
        if not isinstance(values, dict) or not isinstance(values.get("options"), dict):
            raise CheckpointError(f"{path} has no options; remove {self.folder} to start again")
        return values
