"""What the steps of building a data set have in common."""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Generic, TypeVar

import torch
from lightning import LightningModule

from insvie_lightning.batch import Draft, Rejected, Triplet
from insvie_lightning.builders.results import Built, Packed, by_key
from insvie_lightning.builders.store import Store, Tally
from insvie_lightning.builders.units import Input, Inputs, UnitLoader, Units, Work, check_keys, hash_keys
from insvie_lightning.errors import InputError
from insvie_lightning.nets.sharing import Sharing, activate
from insvie_lightning.shards.compact import compact_many
from insvie_lightning.shards.convert import check_bad_rate
from insvie_lightning.shards.funnel import write_funnel
from insvie_lightning.shards.job import open_job, say_full
from insvie_lightning.shards.ledger import Ledger
from insvie_lightning.shards.stats import count_reasons, without_names

Sample = TypeVar("Sample", Draft, Triplet)

ENOUGH = 200
"""A rate of bad inputs over fewer is taken over so many, or over all of them."""


class Builder(LightningModule, ABC, Generic[Sample]):
    """One step of building a data set, used with `insvie predict`: drafts or triplets in, shards out.

    A step says what it makes of drafts in `make`; what becomes of that is said here. The input is cut into units of
    `shard_size`, and unit n becomes shard n of the output. Any number of processes, ranks and jobs may work on one
    folder, and the ranks of a job may share the weights of its networks (`-c fsdp`). A step that was stopped at any
    moment is started again in the same way: finished shards stay, units in progress are made anew, and the data set
    ends as if nothing had happened.

    A bad input (an `InputError` of the data module or of `make`) is rejected with its reason; any other error stops
    the job, and so does a subclass of `InputError`, which says that all inputs fare alike.

    Args:
        output: Shard folder.
        shard_size: Inputs a shard, which is the unit of work, of restart and of loss.
        max_bad_rate: Share of bad inputs (0 to 1) above which the job stops. What `make` rejects is not bad.
    """

    version: int = 1
    """Raised when the step makes something else of the same drafts; it goes into the lineage."""
    takes: type = object
    """What it is fed: `Draft`, `Triplet`, or either."""
    lossless: bool = False
    """Whether clips are stored without loss, which only suits tiny ones."""
    elsewhere: frozenset[str] = frozenset({"output", "max_bad_rate"})
    """Settings that do not change what is made, so that a rerun may have others; or that `settings` tells in its own
    words, since they are objects."""

    def __init__(self, output: Path, shard_size: int = 256, max_bad_rate: float = 0.5) -> None:
        super().__init__()
        if shard_size < 1 or not 0 <= max_bad_rate <= 1:
            raise InputError(
                f"shard_size is {shard_size}, max_bad_rate {max_bad_rate}; legal are 1 or more, and shares from 0 to 1"
            )
        self.save_hyperparameters(logger=False, ignore=sorted(self.elsewhere))
        self.output, self.shard_size, self.max_bad_rate = Path(output), shard_size, max_bad_rate
        self.rehearsal = 0
        """Make the first so many inputs only, and write nothing; 0 is the real thing."""
        self.tally = Tally()
        self._bad: Counter[str] = Counter()
        self.sharing: Sharing | None = None
        """The weights that ranks share; None where each has all of them."""
        self._inputs: Inputs | None = None
        self._ledger: Ledger | None = None
        self._store: Store | None = None

    @abstractmethod
    def make(self, drafts: Sequence[Sample]) -> list[Built]:
        """Do the step for some drafts, or for triplets where these are fed.

        It depends on nothing but the drafts and the step's settings: random numbers are seeded by the key. A draft
        gives one result of its own key, or several of the keys `KEY-WORD`, where WORD is of letters, digits and `_`;
        each may be `Rejected`. A clip that the step does not change is the same object in the result.

        Raises:
            InputError: A draft cannot be used. Of several each is then tried alone.
        """

    @property
    def step(self) -> str:
        """Name of the step in lineage, job and funnel."""
        return type(self).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """What the step was set to, in JSON types: all that changes what is made."""
        chosen = {name: value for name, value in self.hparams.items() if name != "shard_size" and name[0] != "_"}
        plain: dict[str, Any] = json.loads(json.dumps(chosen, default=_plain))
        return plain

    def setup(self, stage: str) -> None:
        """Share the networks that `configure_model` loads (`nets.sharing.place`), if the strategy asks for it."""
        self.sharing = Sharing.of(self.trainer)
        activate(self.sharing)

    def configure_model(self) -> None:
        """Load the networks; a step without any has nothing to do here."""

    def wait(self, seconds: float) -> None:
        """Wait for what other processes have claimed, and take part where ranks share weights."""
        if self.sharing is None:
            time.sleep(seconds)
        else:
            self.sharing.idle(seconds)

    @property
    def ledger(self) -> Ledger:
        """Who works on what; there once the builder is fed."""
        if self._ledger is None:
            raise InputError(f"{self.step} takes drafts: feed it from RawVideos, Images, ImagePairs or Drafts")
        return self._ledger

    def input_count(self) -> int:
        """Number of inputs of the whole job."""
        return 0 if self._inputs is None else len(self._inputs.keys)

    def finished_inputs(self) -> int:
        """How many of them lie in finished units, whoever made them."""
        finished = self.ledger.finished()
        short = self.ledger.units * self.shard_size - self.input_count() if self.ledger.units - 1 in finished else 0
        return len(finished) * self.shard_size - short

    def feed(self, inputs: Inputs, batch_size: int, num_workers: int = 0) -> UnitLoader:
        """Open the ledger over some inputs, and return the loader to predict with.

        Args:
            inputs: All of them.
            batch_size: Inputs that `make` is given at once, at most.
            num_workers: Processes that read.

        Raises:
            InputError: A key is illegal or comes twice, or the output folder holds another job or cannot be written.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; a batch holds at least 1 input")
        keys, at = inputs.keys, str(inputs.reading.get("at", ""))
        check_keys(keys, at or "the input")
        self._inputs = inputs
        if not self.rehearsal:
            made = {"step": self.step, "version": self.version, "settings": self.settings}
            read = {**inputs.reading, "samples": len(keys), "sha256_of_keys": hash_keys(keys)}
            read |= {"at": os.path.relpath(at, self.output)} if at else {}
            open_job(self.output, {**made, "shard_size": self.shard_size, "input": read})
            self._ledger = Ledger(self.output, math.ceil(len(keys) / self.shard_size))
        units = self.rehearsal or Units(self.ledger, self.shard_size, self.wait)
        return UnitLoader(inputs, batch_size, num_workers, units)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Pixels stay where they are: each step moves what it needs."""
        return batch

    def on_predict_start(self) -> None:
        """Begin to store, and to count."""
        self.tally, self._bad = Tally(), Counter()
        self._store = Store(None if self.rehearsal else self.ledger, self.lossless, self.tally)
        if self.sharing is not None:
            self.sharing.take_turns()

    def predict_step(self, batch: Work, batch_idx: int) -> None:
        """Make what is to be made of one batch, and store it; the last batch of a unit finishes its shard."""
        assert self._store is not None
        try:
            made = self._make_all(batch.inputs)
            self._count(batch.inputs, made)
            for input in batch.inputs:
                for result in made[input.sample.key]:
                    self._keep(input, result, batch.unit)
            if batch.last:
                self._store.finish(batch.unit)
        except BaseException as error:
            self._store.close()
            if isinstance(error, OSError):
                raise say_full(self.output, error) from error
            raise

    def on_predict_epoch_end(self) -> None:
        """Where ranks share weights, take part until all are done."""
        if self.sharing is not None:
            self.sharing.leave()

    def on_predict_end(self) -> None:
        """Write and print the funnel, if every unit is finished."""
        assert self._store is not None
        self._store.close()
        if not self.rehearsal and self.trainer.is_global_zero and not self.ledger.unfinished():
            self.ledger.tidy()
            compact_many(self.output)
            write_funnel(self.output, shown=True)

    def _make_all(self, inputs: Sequence[Input]) -> dict[str, Sequence[Built | str]]:
        """Results of every input by its key, in order; of a bad one the reason as the only one."""
        good = [input.sample for input in inputs if not input.bad]
        if other := next((sample for sample in good if not isinstance(sample, self.takes)), None):
            wanted, given = (kind.__name__.lower() for kind in (self.takes, type(other)))
            raise InputError(f"{self.step} takes {wanted}s, and {other.key!r} is a {given}: it is another step's turn")
        made: dict[str, Sequence[Built | str]] = {input.sample.key: [input.bad] for input in inputs if input.bad}
        found, failed = self._attempt(good) if good else ({}, False)
        made |= found
        if failed and len(good) > 1:
            for sample in good:
                made |= self._attempt([sample])[0]
        return made

    def _attempt(self, samples: Sequence[Any]) -> tuple[dict[str, Sequence[Built | str]], bool]:
        """Make results of some samples, or find the reason why not."""
        start = perf_counter()
        try:
            with torch.no_grad():
                built = self.make(samples)
        except InputError as error:
            if type(error) is not InputError:  # no server, no quota: nothing that these samples could help
                raise
            return {sample.key: [str(error)] for sample in samples}, True
        except Exception as error:
            error.add_note(f"{self.step} failed at {', '.join(repr(sample.key) for sample in samples)}")
            raise
        finally:
            self.tally.make_seconds += perf_counter() - start
        assert self._inputs is not None
        return dict(by_key(self.step, [sample.key for sample in samples], built, self._inputs.keys)), False

    def _count(self, inputs: Sequence[Input], made: dict[str, Sequence[Built | str]]) -> None:
        assert self._inputs is not None
        reasons = ((of.sample, said) for of in inputs for said in made[of.sample.key] if isinstance(said, str))
        self._bad.update(count_reasons(without_names(said, of.key, of.lineage) for of, said in reasons))
        self.tally.inputs += len(inputs)
        enough = min(ENOUGH, len(self._inputs.keys))
        check_bad_rate(self._bad, max(self.tally.inputs, enough), self.max_bad_rate)

    def _keep(self, input: Input, result: Built | str, unit: int | None) -> None:
        """Store a result with this step's entry in its lineage."""
        assert self._store is not None
        sample: Any
        files: Mapping[str, bytes] | None = None
        if isinstance(result, str):
            sample, reason = input.sample, result
        else:
            sample, reason = (result.sample, result.reason) if isinstance(result, Rejected) else (result, "")
            if isinstance(sample, Packed):
                if absent := [name for name in sample.kept if name not in input.members]:
                    raise InputError(f"{self.step} is to keep {absent[0]}, and {input.sample.key!r} comes without")
                files = {**{name: input.members[name] for name in sample.kept}, **sample.members}
                sample = sample.sample
        entry = {"version": self.version, "settings": self.settings, **sample.lineage.get(self.step, {})}
        self._store.add(input, replace(sample, lineage={**sample.lineage, self.step: entry}), reason, unit, files)


def _plain(value: Any) -> Any:
    """What JSON cannot say of a setting: a path as text, a set in order, another object as class and plain fields."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if is_dataclass(value) and not isinstance(value, type):  # as the command line, which keeps what was typed, has it
        return asdict(value)
    plain = (str, int, float, bool, type(None), os.PathLike)
    fields = {name: of for name, of in getattr(value, "__dict__", {}).items() if name[0] != "_"}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"class_path": kind, "init_args": {name: of for name, of in fields.items() if isinstance(of, plain)}}
