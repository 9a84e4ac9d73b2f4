"""The command `packing-jax reproduce`."""

import json
import shlex
import signal
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tqdm import tqdm

from packing_jax.commands import interrupts
from packing_jax.commands.options import OptionalDir, OptionalInt, OptionalLog, free_directory
from packing_jax.commands.progress_bar import Bar
from packing_jax.errors import PackingError
from packing_jax.sweeps.progress import EveryTwoSeconds, Stop, stopping

if TYPE_CHECKING:
    from packing_jax.figures.figure import Figure

OptionalSize = Annotated[
    Literal["smoke", "quick", "full"] | None, tyro.conf.arg(metavar="smoke|quick|full", help_behavior_hint="")
]
OptionalName = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class ReproduceCommand:
    """Compute a published figure again; without a name, list the figures.

    - Runs sweeps, draws the figure with the axes of the paper
      (DIR/figure.png), prints a table (quantity, reference, ours with its
      error, agrees) and writes it to DIR/result.json.
    - Exit code 0: done, even if our values disagree; 2: bad input or a full
      disk; 130 or 143: stopped by a signal.
    """

    name: OptionalName = None
    """Name of a figure."""
    size: OptionalSize = None
    """smoke: seconds, only to see that it runs; quick: minutes; full: what the claim of the paper needs. Default:
    quick."""
    seed: OptionalInt = None
    """Seed of everything random. Default: 0."""
    out: OptionalDir = None
    """Directory for the results. Default: reproduce-NAME; if it exists, the first free reproduce-NAME-2, -3, ..."""
    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Continue what is in --out (default: reproduce-NAME). Size and seed keep their values."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make all figures, one process per core, each in a folder of its name below --out (default: reproduce-all)."""
    log: OptionalLog = None
    """What to print on stderr during the run: a progress bar, one JSON object per line, or nothing.
    Default: bar on a terminal, else quiet."""

    def execute(self, command: str) -> int:
        """List the figures, or reproduce one or all."""
        if self.all and self.name is not None:
            raise PackingError(f"--all makes all figures: omit {self.name}, or omit --all")
        if not self.all and self.name is None:
            if self.resume or self.out is not None:
                raise PackingError("which figure? Give its name, or --all; packing-jax reproduce lists them")
            print(_listed())
            return 0
        from packing_jax.figures.catalogue import find

        what = "all" if self.name is None else find(self.name).name
        out = self.out or (Path(f"reproduce-{what}") if self.resume else free_directory(f"reproduce-{what}"))
        again = f"to continue: packing-jax reproduce {self.name or '--all'} --out {shlex.quote(str(out))} --resume"
        log, stop = FigureLog(self.log or ("bar" if sys.stderr.isatty() else "quiet")), Stop()
        try:
            with interrupts.stopped_by_flag(stop, lambda why: f"stopped by {why}; {again}"), stopping(stop):
                code = self._every(out, log, stop) if self.name is None else self._one(out, command, log, stop)
        finally:
            log.close()
        if stop.signal is not None and code != 0:
            print(f"stopped by {signal.Signals(stop.signal).name}; {again}", file=sys.stderr)
            return 128 + stop.signal
        return code

    def _one(self, out: Path, command: str, log: "FigureLog", stop: Stop) -> int:
        from packing_jax.figures.figure import Interrupted
        from packing_jax.figures.session import reproduce

        try:
            result = reproduce(
                str(self.name),
                out,
                size=self.size,
                seed=self.seed,
                resume=self.resume,
                command=command,
                on_progress=log.progress,
                stop=stop,
            )
        except Interrupted:
            return 1
        log.close()
        print(shown(result, out))
        return 0

    def _every(self, out: Path, log: "FigureLog", stop: Stop) -> int:
        from packing_jax.figures.every import reproduce_every

        words = [f"--size={self.size}"] if self.size else []
        words += [f"--seed={self.seed}"] if self.seed is not None else []
        failed = []
        for name, code, text in reproduce_every(out, words, self.resume, log.progress, stop):
            if code == 0:
                log.write(text + "\n")
            elif stop.signal is None:
                failed.append(name)
                log.write(f"{name}: {text}\n")
        log.close()
        if failed:
            print(f"packing-jax: not reproduced: {', '.join(failed)}", file=sys.stderr)
        return 4 if failed or stop.signal is not None else 0


def shown(result: dict[str, Any], out: Path) -> str:
    """What is printed of a result."""
    from packing_jax.figures.result import table

    title = f"{result['name']} ({result['size']}), {result['source']}"
    return "\n".join(
        [
            *textwrap.wrap(title, 80),
            "",
            table(result),
            *(["", "agrees -: the size smoke is too small to tell"] if result["size"] == "smoke" else []),
            "",
            f"figure: {out / 'figure.png'}",
            *([f"movie:  {out / 'movie.gif'}"] if (out / "movie.gif").exists() else []),
            f"result: {out / 'result.json'}, after {result['seconds']:.0f} s",
        ]
    )


def _listed() -> str:
    """The figures there are, on 80 columns."""
    from packing_jax.figures.catalogue import FIGURES

    how = "packing-jax reproduce NAME --size smoke|quick|full, or --all"
    return "\n\n".join([*map(_described, FIGURES.values()), how])


def _described(figure: "Figure") -> str:
    minutes = ", ".join(f"{size} {figure.minutes[size]:g} min" for size in ("quick", "full"))
    source = textwrap.wrap(figure.source, 78, initial_indent="  ", subsequent_indent="  ")
    claim = textwrap.wrap(figure.claim, 78, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([f"{figure.name:<40}{minutes:>40}", *source, *claim])


class FigureLog:
    """What is said on stderr while figures are computed."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._bar = Bar()
        self._clock = EveryTwoSeconds()

    def progress(self, share: float, what: str) -> None:
        """How far the work is, from 0 to 1, and what is under way."""
        if self._form == "json" and (self._clock.due() or share >= 1):
            print(json.dumps({"event": "progress", "share": share, "what": what}), file=sys.stderr, flush=True)
        if self._form != "bar":
            return
        self._bar.show(share, None, [what])

    def write(self, text: str) -> None:
        """A result on stdout, beside the bar."""
        tqdm.write(text, file=sys.stdout)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()
