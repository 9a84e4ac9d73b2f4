"""packing_jax beside Numba, jax-md and LAMMPS on the same work: `python benchmarks/compare.py --out results.json`.

First all codes must compute the same move. Then come contests: the contenders live in processes of their own and take
turns, A, B, ..., A, B, ..., so that a ratio is the median over rounds of neighbouring measurements. What fails or is
not installed is reported, and the rest goes on. Results are written after each contest; --resume keeps those that
an earlier run with the same versions on the same device finished.

The work is 3D, phi = 0.66, kick 0.02, one thermalised configuration for all, whole runs with their list rebuilds. Rates
are particle-steps per second (particles per second for a rebuild); the memory floor is explained in
packing_jax.commands.bench.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from common import Absent, Failed, Start, Worker, call, rounds
from contests import Contest, Entry, contests, works_to_start
from same_move import bro_checks, gradient_checks
from targets import targets_of

from packing_jax.commands.bench import Row, Work, format_rows, rebuild_bytes, step_bytes

JAX = ("ours", "peer_jax_md")  # modules that compute on jax's device


@dataclass
class Results:
    """What results.json holds."""

    quick: bool
    environment: dict[str, Any]
    checks: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    contests: dict[str, Any] = field(default_factory=dict)  #: name -> seconds it took, and what failed
    skipped: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write atomically, so that an interrupted run leaves a whole file."""
        content = asdict(self) | {"targets": targets_of(self.rows, self.environment["platform"])}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Take over what an earlier run finished."""
        old = json.loads(path.read_text())
        same = all(old["environment"][key] == self.environment[key] for key in ("versions", "device"))
        if not same or old["quick"] != self.quick:
            say(f"{path} is of other versions, another device or another mode; starting afresh")
            return
        self.checks, self.skipped = old["checks"], old["skipped"]
        self.contests = {name: state for name, state in old["contests"].items() if not state["failed"]}
        self.rows = [Row(**row) for row in old["rows"] if row["contest"] in self.contests]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


# --- one contest ----------------------------------------------------------------------------------------------


def open_workers(entries: list[Entry], at_once: int, results: Results) -> tuple[dict[Entry, Worker], dict[Entry, Any]]:
    """Start and warm up contenders, ``at_once`` at a time; those that cannot are reported and left out."""
    workers: dict[Entry, Worker] = {}
    metas: dict[Entry, Any] = {}
    for first in range(0, len(entries), at_once):
        group = entries[first : first + at_once]
        begun = {e: Worker(e.module, e.function, *e.arguments, env=dict(e.env)) for e in group}
        for entry, worker in begun.items():
            try:
                metas[entry] = worker.ready()
                workers[entry] = worker
                say(f"    ready: {metas[entry]['code']}, {entry.title} {metas[entry]['note']}")
            except Absent as absent:
                say(f"    skipped: {entry.module}: {absent}")
                results.skipped[entry.module] = str(absent)
            except Failed as failed:
                say(f"    FAILED: {entry.module}, {entry.title}: {failed}")
                results.skipped[f"{entry.module}, {entry.title}, N = {entry.work.particles}"] = str(failed)
    return workers, metas


def hold(contest: Contest, results: Results) -> dict[Entry, Any]:
    """Run a contest and add its rows; what its contenders returned."""
    began = time.perf_counter()
    workers, metas = open_workers(contest.entries, 2 if results.quick else 1, results)
    rates: dict[Entry, list[float]] = {entry: [] for entry in workers}
    returned, peaks = {}, {}
    try:
        for entry, rate in rounds(workers, contest.rounds, contest.seconds):
            if isinstance(rate, Failed):
                say(f"    FAILED: {entry.module}, {entry.title}: {rate}")
                results.skipped[f"{entry.module}, {entry.title}, N = {entry.work.particles}"] = str(rate)
                del rates[entry]
            else:
                rates[entry].append(rate)
        for entry in rates:
            returned[entry], peaks[entry] = workers[entry].stop()
    finally:
        for worker in workers.values():
            worker.kill()
    for entry, values in rates.items():
        row = row_of(entry, values, rates, metas[entry], contest, results.environment)
        row.peak_bytes_per_particle = metas[entry].get("peak_bytes_per_particle")
        row.peak_resident_bytes = peaks[entry]
        results.rows.append(row)
    failed = [f"{entry.module}, {entry.title}" for entry in contest.entries if entry not in rates]
    took = time.perf_counter() - began
    results.contests[contest.name] = {"seconds": took, "failed": [f for f in failed if not absent(f, results)]}
    say(f"  took {took:.0f} s")
    return returned


def absent(failed: str, results: Results) -> bool:
    """Whether a contender's package is missing, which no second try will change."""
    return failed.split(",", maxsplit=1)[0] in results.skipped


def row_of(
    entry: Entry,
    values: list[float],
    rates: dict[Entry, list[float]],
    meta: dict[str, Any],
    contest: Contest,
    environment: dict[str, Any],
) -> Row:
    """A row of the table."""
    work, rate, base = entry.work, float(np.median(values)), entry.against
    ratio = None if base not in rates else float(np.median(np.divide(values, rates[base])))
    moved = rebuild_bytes(work) if entry.function == "rebuild" else step_bytes(work)
    floor = environment["copy_bytes_per_s"] / moved
    on_cpu_jax = entry.module in JAX and environment["platform"] == "cpu"
    return Row(
        code=meta["code"],
        work=entry.title,
        device=environment["device" if entry.module in JAX else "cpu"],
        N=work.particles,
        replicas=entry.replicas,
        phi=work.phi,
        kick=work.kick,
        dim=work.dim,
        dtype=meta["dtype"],
        particle_steps_per_s=rate,
        ratio=ratio,
        against=None if ratio is None else base.name,
        fraction_of_floor=rate / floor,
        floor=floor,
        rounds=values,
        seconds=contest.seconds * contest.rounds,
        threads=environment["cores"] if on_cpu_jax else meta["threads"],
        activity=meta.get("activity"),
        note=meta["note"],
        contest=contest.name,
    )


# --- all of it -------------------------------------------------------------------------------------------------


def check_moves(results: Results, start: Start, work: Work) -> None:
    """Compare the codes' moves; a code whose move is wrong is reported and still timed."""
    ours = ("ours", work)
    gradient = {"packing_jax": ours, "jax-md": ("peer_jax_md",), "LAMMPS": ("peer_lammps",), "Numba": ("peer_numba",)}
    kicks = {"packing_jax": ours, "Numba, tuned": ("peer_numba", "tuned"), "Numba, plain": ("peer_numba", "plain")}
    checks = gradient_checks(start, gradient) + bro_checks(start, work.kick, kicks, 200)
    for check in checks:
        verdict = {True: "same move", False: "DIFFERENT MOVE", None: "not checked"}[check.passed]
        size = "" if check.mismatch is None else f"mismatch {check.mismatch:.2g} (limit {check.limit:.2g}), "
        say(f"  {check.code}, {check.move}: {verdict}: {size}{check.note}")
    results.checks = [asdict(check) for check in checks]


def near_transition(results: Results, contest: Contest, returned: dict[Entry, Any]) -> None:
    """Whether the two runs of a contest near the transition were the same bits."""
    if len(returned) < 2:
        return
    dense, automatic = (returned[entry] for entry in contest.entries)
    same = all(np.array_equal(dense[name], automatic[name]) for name in dense)
    say(f"  the two trajectories are {'the same bits' if same else 'DIFFERENT'}")
    results.contests[contest.name]["same_bits"] = same


def main(
    out: Path = Path("results.json"),
    quick: bool = False,
    resume: bool = False,
    only: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "",
) -> int:
    """Time packing_jax beside its peers.

    Args:
        out: where the results go.
        quick: short rounds and fewer rows; three minutes on two cores.
        resume: keep the contests that OUT already holds.
        only: run the contests whose name contains this.
    """
    began = time.perf_counter()
    say("environment, and the bandwidth of a copy")
    results = Results(quick, call("ours", "environment"))
    gpu = results.environment["platform"] != "cpu"
    say(f"  {results.environment['device']}, copies {results.environment['copy_bytes_per_s'] / 1e9:.1f} GB/s")
    if resume and out.exists():
        results.resume(out)
    say("starting configurations")
    starts = call("ours", "starts", works_to_start(quick, gpu))
    for work, why in starts.items():
        if isinstance(why, str):
            say(f"  FAILED: {work}: {why}")
            results.skipped[f"start of {work}"] = why
    first = Work(1000)
    if not results.checks and not isinstance(starts[first], str):
        say("do all codes compute the same move?")
        check_moves(results, starts[first], first)
    for contest in contests(quick, gpu, starts):
        if only not in contest.name or contest.name in results.contests:
            continue
        say(f"[{time.perf_counter() - began:.0f} s] {contest.name}")
        try:
            returned = hold(contest, results)
        except (Failed, OSError) as error:
            say(f"  FAILED: {error}")
            results.skipped[contest.name] = str(error)
            continue
        if contest.same_bits:
            near_transition(results, contest, returned)
        results.write(out)
    results.write(out)
    report(results, out, time.perf_counter() - began)
    return 0 if all(check["passed"] is not False for check in results.checks) else 1


def report(results: Results, out: Path, seconds: float) -> None:
    """Print the table, the targets and what is missing."""
    print(format_rows(results.rows))
    print()
    for target in json.loads(out.read_text())["targets"]:
        measured = "not measured" if target["measured"] is None else f"{target['measured']:.3g}"
        wanted = "reported" if target["target"] is None else f"{target['sense']} {target['target']:g}"
        verdict = {True: "met", False: "MISSED", None: ""}[target["met"]]
        print(f"{target['name']:72} {measured:>12}  {wanted:12} {verdict}".rstrip())
    for name, why in results.skipped.items():
        print(f"without {name}: {why}")
    print(f"{seconds:.0f} s; results: {out}")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
