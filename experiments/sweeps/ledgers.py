"""The ledgers of a sweep: trials that they have count as done, and those that the sweep finishes are added to the first.

A trial of a ledger gets a run folder with its config, rows and result, and without checkpoints: it can be compared with the
others, and be in a report, but not be loaded.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.errors import DataError
from experiments.storage import files, ledger, run_folder
from experiments.storage.ledger import Finished
from experiments.sweeps import states, sweep_folder
from experiments.sweeps.trials import Trial

FLAG = "--ledger"


class Ledgers:
    """The ledgers of a sweep.

    Args:
      folders: Their folders, or none. The first need not exist.

    Raises:
      UsageError: The first one cannot be written.
    """

    def __init__(self, folders: Sequence[Path] = ()):
        for folder in folders[:1]:
            files.refuse_unwritable(FLAG, folder)
        self._folders = folders
        self._entries = {key: entry for folder in reversed(folders) for key, entry in ledger.by_fingerprint(folder).items()}

    def have(self, trial: Trial) -> bool:
        """Returns whether one of them has a trial."""
        return bool(self._entries) and trial.fingerprint in self._entries

    def read(self, trial: Trial) -> Finished:
        """Returns a trial that one of them has.

        Raises:
          DataError: Its entry is damaged, or its data was another version.
        """
        entry = self._entries[trial.fingerprint]
        run = ledger.read(entry)
        if run.result.get("corpus_sha256", trial.corpus) != trial.corpus:  # the first runs do not tell it
            name = trial.fields["data.name"]
            raise DataError(f"{FLAG}={entry} was trained on another version of the corpus {name}: choose another ledger")
        return run

    def take(self, sweepdir: Path, trials: Iterable[Trial]) -> int:
        """Makes a run folder of each trial that a ledger has and nobody has begun. Returns how many. Raises as `read`."""
        taken = 0
        for trial in trials:
            folder = sweep_folder.trial_folder(sweepdir, trial.name)
            if self.have(trial) and not (folder / run_folder.CONFIG).exists():
                run = self.read(trial)
                with run_folder.claim(folder):
                    files.write_json(folder / run_folder.CONFIG, trial.config().to_dict())
                    files.write_whole(folder / run_folder.METRICS, "".join(json.dumps(row) + "\n" for row in run.rows))
                    files.write_json(folder / run_folder.RESULT, run.result)
                taken += 1
        return taken

    def add(self, sweepdir: Path, trials: Iterable[Trial], label: str) -> None:
        """Adds the trials that are finished to the first ledger, unless one of them has it.

        Raises:
          DataError: A run folder is damaged.
          OSError: The ledger cannot be written.
        """
        for trial in trials:
            if self._folders and not self.have(trial) and states.is_done(sweepdir, trial, None):
                folder, config = sweep_folder.trial_folder(sweepdir, trial.name), trial.config()
                entry = ledger.entry_of(self._folders[0], label, config)
                run = Finished(run_folder.read_result(folder), run_folder.read_rows(folder))
                ledger.write(entry, config, run, folder)
                self._entries[trial.fingerprint] = entry
