"""What a command says on stderr while a sweep runs: a progress bar, one JSON object a line, or the last line only."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from packing_jax.commands.lines import columns, say, wrapped
from packing_jax.sweeps.progress import EveryTwoSeconds, SweepProgress
from packing_jax.sweeps.run import Outcome
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.status import duration, how_it_goes_on

Log = Literal["bar", "json", "quiet"]


class Bar:
    """Two lines of a terminal: share, bar and the time left; and below them as many words as there is room for."""

    def __init__(self) -> None:
        self._first: Any = None
        self._second: Any = None

    def show(self, share: float, seconds_left: float | None, words: Sequence[str]) -> None:
        """Draw it.

        Args:
            share: of the work, 0 to 1.
            seconds_left: None as long as it is not known.
            words: what else is known, the most important first; those that do not fit are left out.
        """
        if self._first is None:  # not sooner: bad input gets a sentence and no bar
            form, words_only = "{percentage:3.0f}% |{bar}| {elapsed}{postfix}", "{desc}"
            self._first = tqdm(total=1.0, bar_format=form, file=sys.stderr, dynamic_ncols=True, position=0)
            self._second = tqdm(bar_format=words_only, file=sys.stderr, dynamic_ncols=True, position=1, leave=True)
        self._first.n = min(share, 1.0)
        left = "" if seconds_left is None else f"{duration(seconds_left)} left"
        self._first.set_postfix_str(left, refresh=True)
        self._second.set_description_str(_fitting(words, columns(sys.stderr) - 1), refresh=True)

    def close(self) -> None:
        """Leave it as it is."""
        for one in (self._first, self._second):  # from above: each ends its line
            if one is not None:
                one.close()
        self._first = self._second = None


def _fitting(words: Sequence[str], width: int) -> str:
    """As many of the words as a line holds, in their order."""
    line = words[0][:width] if words else ""
    for word in words[1:]:
        longer = f"{line}, {word}" if line else word
        line = longer if len(longer) <= width else line
    return line


class ProgressReport:
    """What is said on stderr while a sweep runs."""

    def __init__(self, form: Log) -> None:
        self.form = form
        self._bar = Bar()
        self._clock = EveryTwoSeconds()
        self._last: SweepProgress | None = None

    def progress(self, now: SweepProgress) -> None:
        """Where the sweep stands, after a chunk."""
        begins, self._last = self._last is None, now
        if self.form == "json" and (self._clock.due() or now.done == now.total):
            self._json("progress", now.plain())
        if self.form != "bar":
            return
        words = [f"{now.done}/{now.total} done"]
        words += ["compiling"] if begins else []
        words += [f"{one.axis}_c {one.low:g} to {one.high:g}" for one in now.transitions[:1]]
        words += [f"{now.failed} failed"] if now.failed else []
        words += [] if begins else [f"{now.absorbed} absorbed", f"{now.running} under way"]
        words += [f"{now.speed / 1e6:.2g} M {now.unit}-steps/s"] if now.speed else []
        self._bar.show(now.share, now.seconds_left, words)

    def note(self, text: str) -> None:
        """A sentence about damage."""
        if self.form == "json":
            self._json("note", {"text": text})
        else:
            tqdm.write(wrapped(text, sys.stderr), file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def end(self, out: Path, outcome: Outcome, spec: Spec) -> None:
        """The last line."""
        missing = outcome.total - outcome.done
        failed = outcome.failed - (outcome.diverged if spec.diverges else 0)
        line = f"{out}: {outcome.done - failed} of {outcome.total} cells are done"
        line += f", {outcome.diverged} of them diverged" if outcome.failed > failed else ""
        line += f", {failed} failed" if failed else ""
        line += f", {missing} {'is' if missing == 1 else 'are'} missing" if missing else ""
        if outcome.failed:
            line += f" (one {outcome.reasons[0]})"
        if outcome.stopped is not None:
            line = f"stopped by {outcome.stopped}; {line}; {_goes_on(out, spec, missing)}"
        if self.form == "json":
            facts = outcome._asdict() | {"missing": missing, "directory": str(out), "text": line}
            self._json("end", facts)
        else:
            say(line)

    def cut_off(self, out: Path, signal: str, spec: Spec) -> str:
        """The last line where a signal cannot wait for the end of the present steps."""
        if self._last is None:
            line = f"stopped by {signal} before the first step"
            facts: dict[str, Any] = {"stopped": signal, "directory": str(out)}
        else:
            total, done = self._last.total, self._last.done
            line = f"stopped by {signal}; {out}: {done} of {total} cells are done, {total - done} are missing; "
            line += _goes_on(out, spec, total - done)
            facts = {"stopped": signal, "directory": str(out), "done": done, "total": total, "missing": total - done}
        if self.form == "json":
            return json.dumps({"event": "end", "time": time.time(), **facts, "text": line})
        return wrapped(line, sys.stderr)

    def _json(self, event: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"event": event, "time": time.time(), **facts}), file=sys.stderr, flush=True)


def _goes_on(out: Path, spec: Spec, missing: int) -> str:
    return how_it_goes_on(out, spec.own, spec.kind) if missing else f"packing-jax report {out} makes its report"
