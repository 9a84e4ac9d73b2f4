"""The command `packing-jax train`, whose options are those of the task and of the rule that it is given as well."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from packing_jax.commands.options import (
    OptionalDir,
    OptionalGrid,
    OptionalInt,
    RunOptions,
    free_directory,
    numbers,
    sweep_and_report,
)
from packing_jax.errors import PackingError
from packing_jax.networks.options import Option
from packing_jax.networks.tasks import TASKS, Ready
from packing_jax.sweeps.kinds import known_spec
from packing_jax.sweeps.network_parts import ready_task, rule_of
from packing_jax.sweeps.networks import Training
from packing_jax.sweeps.own import imported
from packing_jax.sweeps.schema import description
from packing_jax.sweeps.spec import stored_spec

_PROG = "packing-jax train"
_WIDTH = 79  # of the help
_Words = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
_Whole = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainCommand(RunOptions):
    """Train networks: a task under SGD, Langevin dynamics or random organization.

    Every number of the task and the rule can be a list or a range; replicas of all combinations are run. Ends with the
    report: a table, and figures of loss, activity and displacements.

    - Ctrl-C and SIGTERM stop it after the current steps; nothing is lost.
    - --resume DIR continues, and can add more --steps, more --replicas, and
      further values of numbers.
    - Exit code 0: all cells done, diverged ones included; 2: bad input or
      a full disk; 3: stopped by --max-walltime; 4: some cells failed;
      130 or 143: stopped by a signal.
    """

    task: tyro.conf.SuppressFixed[tyro.conf.Fixed[str]] = ""
    rule: Annotated[str | None, tyro.conf.arg(metavar="NAME|MODULE:OBJECT", help_behavior_hint="")] = None
    """What moves the weights: sgd (heavy ball), noisy-sgd, implicit-sgd, nag-gs, adam, langevin, or bro (biased random
    organization of violated samples). Its numbers are options too, listed here for the rule that is given. Or an object
    of your own, such as my_model:slow in ./my_model.py: a function of numbers, given as keyword arguments, that makes a
    rule or an optax optimizer."""
    steps: OptionalInt = None
    """Steps to make."""
    replicas: OptionalInt = None
    """Independent runs of each combination of numbers."""
    resume: OptionalDir = None
    """Continue the sweep in DIR. Options that are not given keep their values. Only more steps, replicas and values of
    numbers may be added; other changes are refused."""
    start_from: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR", help_behavior_hint="")] = None
    """Start each replica from the final weights of the sweep in DIR, from the cell with the same values and replica
    number. A number with only one value there may have another value here."""
    record: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="WORDS", help_behavior_hint="")
    ] = ()
    """What to record, such as loss,activity,msd,overlap=0.01 (the number is the distance within which weights overlap);
    or an observable of your own, name=my_model:function. Can be given several times."""
    record_every: OptionalInt = None
    """Steps between two records. Default: 40 logarithmic and 100 linear times."""
    waits: Annotated[str | None, tyro.conf.arg(metavar="LIST", help_behavior_hint="")] = None
    """Waiting times in steps, from which msd and overlap are measured. Default: 0."""
    precision: Annotated[
        Literal["float32", "float64"] | None, tyro.conf.arg(metavar="float32|float64", help_behavior_hint="")
    ] = None
    """Floating-point type of the dynamics and of the store. Default: float32."""
    seed: _Whole = None
    """Seed of batches and noise; the same seed gives the same bits. Default: 0."""
    disorder_seed: _Whole = None
    """Seed of random data and of initial weights, which are the same for all learning rates, batch sizes and
    temperatures. Default: 0."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Run on the workers of a Dask scheduler, such as tcp://node1:8786. They must see the same file system."""
    local_workers: OptionalInt = None
    """Number of worker processes to run on, on this machine."""
    trust_rule: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume although objects of your own have no source code that could be compared with those at the beginning of the
    sweep. The store keeps a note of this."""

    def execute(self, command: str) -> int:
        """Run it, then the report."""
        spec = self.specification()
        if self.resume is None:
            out = self.out or free_directory(f"packing-{self.task}" if self.task in TASKS else "packing-train")
        elif self.out is not None:
            raise PackingError(f"--resume writes into {self.resume}; omit --out")
        else:
            out, stored = self.resume, stored_spec(description(self.resume), spec)
            same = {name: getattr(stored, name) for name in ("seed", "disorder_seed", "precision")}
            spec = dataclasses.replace(spec, **{name: same[name] for name in same if getattr(self, name) is None})
        return sweep_and_report(
            spec,
            out,
            self,
            command,
            resume=self.resume is not None,
            scheduler=self.scheduler,
            local_workers=self.local_workers,
        )

    def specification(self) -> Training:
        """The sweep that these words describe."""
        axes, settings = {}, {}
        for name, option in self.options().items():
            word = getattr(self, name)
            if word is not None and option.number is None:
                settings[name] = word
            elif word is not None:
                axes[name] = numbers(name.replace("_", "-"), word)
        measure, own = _recorded(self.record)
        return Training(
            task=given(self.task, "TASK"),
            rule=None if self.rule is None else given(self.rule, "--rule"),
            axes=axes or None,
            settings=settings or None,
            steps=self.steps,
            replicas=self.replicas,
            seed=self.seed or 0,
            disorder_seed=self.disorder_seed or 0,
            precision=self.precision or "float32",
            waits=None if self.waits is None else _whole("waits", self.waits),
            measure=measure,
            record=own,
            record_every=self.record_every,
            start_from=None if self.start_from is None else str(self.start_from.resolve()),
            trust_rule=self.trust_rule,
        )

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Those of the task and the rule, which a subclass has as fields; none before they are named."""
        return {}


def overview() -> str:
    """What `packing-jax train --help` says: the tasks."""
    width = max(map(len, TASKS))
    lines = []
    for name, ready in TASKS.items():
        first = f"  {name:<{width}}  "
        lines += textwrap.wrap(ready.claim, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    last = (
        "or a function of your own that makes a task from numbers, such as my_model:task in ./my_model.py. packing-jax "
        "train TASK --help lists the options of the task. Without any it runs an example."
    )
    head = "Train networks: packing-jax train TASK, where TASK is one of"
    return "\n".join([head, *lines, _item(last)])


class Asked(NamedTuple):
    """A command whose options are still words."""

    kind: type[Any]  #: a dataclass of its options
    prog: str
    words: list[str]
    text: str  #: what its help says first


def train_command(words: Sequence[str]) -> Asked:
    """The command of some words, the first of which is the task; a task of the package may be left to ``--resume``.

    Raises:
        PackingError: no task, or an unknown one.
    """
    named = bool(words) and not words[0].startswith("-")
    task, rest = (words[0], list(words[1:])) if named else ("", list(words))
    stored: dict[str, Any] = {}
    directory = word_after(rest, "--resume")
    if directory is not None:
        stored = description(Path(directory))
        task = task or str(known_spec(stored).fixed.get("task"))
    if not task:
        if not {"-h", "--help"}.issuperset(words):
            raise PackingError(f"which task? It comes first: packing-jax train TASK, where TASK is {', '.join(TASKS)}")
        return Asked(TrainCommand, _PROG, ["--help"], overview())
    kind = _of(task, word_after(rest, "--rule") or (stored.get("rule") if stored.get("rule") != "own" else None))
    return Asked(kind, f"{_PROG} {task}", rest, str(kind.__doc__))


def _of(task: str, rule: str | None) -> type[TrainCommand]:
    """The command with the options of a task and a rule."""
    kinds = {int: OptionalGrid, float: OptionalGrid}
    return with_numbers(TrainCommand, task, rule, kinds, _described(ready_task(given(task, "TASK"))))


def with_numbers(
    base: type[Any], task: str, rule: str | None, kinds: Mapping[type, Any], text: str, but: Sequence[str] = ()
) -> Any:
    """A command with the options of a task and a rule.

    Args:
        base: the command, with a field ``task``.
        task: a word for it.
        rule: a word for it; None: the task's own.
        kinds: types of the options that are whole numbers and floats.
        text: what its help says first.
        but: options that it does not have.

    Raises:
        PackingError: an unknown task or rule, or an option that the command has already.
    """
    ready = ready_task(given(task, "TASK"))
    rule = ready.sweep.get("rule", "sgd") if rule is None else rule
    of_rule = rule_of(given(rule, "--rule"))[1]
    options = {name: one for name, one in {**ready.options, **of_rule}.items() if name not in but}
    if taken := sorted(options.keys() & {one.name for one in dataclasses.fields(base)}):
        raise PackingError(f"an option of a task or rule cannot be called {taken[0]}; choose another name")
    made: list[Any] = []
    top = [("task", tyro.conf.SuppressFixed[tyro.conf.Fixed[str]], dataclasses.field(default=task))]
    for name, option in options.items():
        kind: Any = _Words if option.number is None else kinds[option.number]
        default = ready.sweep.get(name, option.default)
        if kind is not OptionalGrid and isinstance(default, tuple):
            default = option.default
        help_ = f"{option.help} Default: {_shown(default)}.".strip()
        made.append((name, Annotated[kind, tyro.conf.arg(help=help_)], dataclasses.field(default=None)))
    numbered = dataclasses.make_dataclass("Numbers", made, frozen=True, kw_only=True)
    return dataclasses.make_dataclass(
        base.__name__,
        top,
        bases=(base, numbered),  # so that the numbers come first in the help
        frozen=True,
        kw_only=True,
        namespace={"options": classmethod(lambda _: options), "__doc__": text},
    )


def _described(ready: Ready) -> str:
    """What a task is, and what it runs without options."""
    claim = ready.claim if len(ready.claim) <= _WIDTH else _item(ready.claim)
    several = {name: values for name, values in ready.sweep.items() if isinstance(values, tuple) and len(values) > 1}
    if not several:
        return claim
    shown = ", ".join(f"{name.replace('_', ' ')} {_shown(values)}" for name, values in several.items())
    more = f"Without a rule or numbers it runs {shown}. If you give some, each of the others has one value."
    return f"{claim}\n\n{_item(more)}"


def _item(text: str) -> str:
    """A paragraph whose lines tyro leaves as they are."""
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent="- ", subsequent_indent="  "))


def _shown(value: Any) -> str:
    return (
        ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else "none" if value is None else str(value)
    )


def word_after(words: Sequence[str], option: str) -> str | None:
    """What stands behind an option."""
    for word, after in zip_longest(words, words[1:]):
        if word == option and after is not None:
            return after
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def given(word: str, what: str) -> Any:
    """A name, or the object of a user's that a word of this command line names."""
    return imported(word, what) if ":" in word else word


def _recorded(words: Sequence[str]) -> tuple[tuple[str, ...] | None, dict[str, Any] | None]:
    """Words of the package's observables, and a user's own by their names."""
    measure: list[str] = []
    own: dict[str, Any] = {}
    for word in (one for part in words for one in part.split(",")):
        name, _, place = word.partition("=")
        if ":" not in place:
            measure.append(word)
        elif name in own:
            raise PackingError(f"--record names {name} twice; each observable needs a name of its own")
        else:
            own[name] = imported(place, f"--record {name}")
    return tuple(measure) or None, own or None


def _whole(name: str, text: str) -> tuple[int, ...]:
    found = numbers(name, text)
    if any(one != round(one) for one in found):
        raise PackingError(f"--{name} is {text!r}; it must be a list of whole steps, such as 0,100")
    return tuple(map(int, found))
