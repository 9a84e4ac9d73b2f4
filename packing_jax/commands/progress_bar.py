"""What a command says on stderr while a sweep runs: a progress bar, one JSON object a line, or the last line only."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from packing_jax.errors import printable
from packing_jax.sweeps.progress import EveryTwoSeconds, SweepProgress
from packing_jax.sweeps.run import Outcome
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.status import how_it_goes_on

Log = Literal["bar", "json", "quiet"]


class ProgressReport:
    """What is said on stderr while a sweep runs."""

    def __init__(self, form: Log) -> None:
        self._form = form
        self._bar: Any = None
        self._clock = EveryTwoSeconds()

    def progress(self, now: SweepProgress) -> None:
        """Where the sweep stands, after a chunk."""
        if self._form == "json" and (self._clock.due() or now.done == now.total):
            self._json("progress", now.plain())
        if self._form != "bar":
            return
        if self._bar is None:  # not sooner: bad input gets a sentence and no bar
            self._bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed}{postfix}", file=sys.stderr)
            self._bar.set_postfix_str(f"{now.done}/{now.total} done, compiling")
            return
        from packing_jax.sweeps.status import duration

        self._bar.update(now.share - self._bar.n)
        parts = [f"{now.done}/{now.total} done", f"{now.absorbed} absorbed", f"{now.running} under way"]
        parts += [f"{now.failed} failed"] if now.failed else []
        parts += [f"{now.speed / 1e6:.2g} M {now.unit}-steps/s"]
        parts += [f"{duration(now.seconds_left)} left"] if now.seconds_left is not None else []
        parts += [f"{one.axis}_c {one.low:g} to {one.high:g}" for one in now.transitions[:1]]
        self._bar.set_postfix_str(", ".join(parts))

    def note(self, text: str) -> None:
        """A sentence about damage."""
        if self._form == "json":
            self._json("note", {"text": text})
        else:
            tqdm.write(printable(text), file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
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
            line = f"stopped by {outcome.stopped}; {line}; {how_it_goes_on(out, spec.own, spec.kind)}"
        if self._form == "json":
            facts = outcome._asdict() | {"missing": missing, "directory": str(out), "text": line}
            self._json("end", facts)
        else:
            print(printable(line), file=sys.stderr)

    def _json(self, event: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"event": event, "time": time.time(), **facts}), file=sys.stderr, flush=True)
