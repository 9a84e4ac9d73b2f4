"""The front door: a system, a rule and a number of steps in; records and the last configuration out.

:func:`simulate` takes whatever knows its kind (:class:`packing_jax.drive.kind.Problem`): spheres, the weights of a
network, or something of your own. The loop behind it is :mod:`packing_jax.drive`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from packing_jax import observables
from packing_jax.drive.chunk import Observable
from packing_jax.drive.kind import Kind, Problem, Replicas
from packing_jax.drive.run import Progress, Result, default_batch, run
from packing_jax.drive.schedule import check_times, log_times
from packing_jax.errors import PackingError, calling, shown
from packing_jax.spheres.particles import particles_of
from packing_jax.spheres.start import gather_replicas
from packing_jax.spheres.system import System
from packing_jax.trees import named_leaves

if TYPE_CHECKING:
    import xarray as xr

#: What is recorded of spheres by default.
DEFAULT_RECORD: Mapping[str, Observable] = {
    "activity": observables.activity,
    "energy": observables.energy,
    "msd": observables.mean_squared_displacement,
}


@dataclass(frozen=True)
class Trajectory:
    """What :func:`simulate` returns; every array has a leading replica axis if the input had one."""

    times: np.ndarray  #: (M,) steps at which the records were taken
    records: dict[str, np.ndarray]  #: name -> (..., M), followed by the axes of the observable
    final: Mapping[str, np.ndarray]  #: the last configuration, by name; of spheres, positions (..., N, dim) in [0, box)
    absorbed_at: np.ndarray  #: (...) step of absorption (of spheres the first without an overlap), -1 if still active
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)  #: phi, kick, ...: name -> () or (...)
    attributes: Mapping[str, Any] = field(default_factory=dict)  #: particles, dim, rule, where they are known

    def __getitem__(self, name: str) -> np.ndarray:
        """A record by its name.

        Raises:
            PackingError: it was not recorded.
        """
        if name not in self.records:
            raise PackingError(
                f"{name!r} was not recorded, but {', '.join(self.records) or 'nothing'}: the "
                "argument record of simulate replaces activity, energy and msd"
            )
        return self.records[name]

    def __repr__(self) -> str:
        """Names and sizes, without the arrays."""
        model = ", ".join(f"{name} {value}" for name, value in self.attributes.items())
        return (
            f"Trajectory({model or 'of its own kind'}; {self.times.size} times up to step {self.times[-1]}; "
            f"records {', '.join(self.records) or 'none'}; replicas {self.absorbed_at.shape})"
        )

    @property
    def positions(self) -> np.ndarray:
        """(..., N, dim) final positions of spheres, in [0, box).

        Raises:
            PackingError: the run was of another kind, whose last configuration is in ``final``.
        """
        if "positions" not in self.final:
            raise PackingError(
                f"only spheres have positions; the last configuration here is in final: {', '.join(self.final)}"
            )
        return self.final["positions"]

    def to_xarray(self) -> "xr.Dataset":
        """As a dataset, which every estimate of phi_c takes; dims replica (if any), time, particle and axis.

        The parameters are coordinates, () or (replica,): phi of spheres, and the numbers of the rule by their names.

        Raises:
            PackingError: a record with the name of an axis or of a final value.
        """
        return _dataset(self)


def simulate(
    system: Any,
    rule: Any,
    steps: int,
    key: Array,
    *,
    start: Any = None,
    record: Mapping[str, Observable] | None = None,
    times: np.ndarray | None = None,
    batch: int | None = None,
    chunk_steps: int | None = None,
    skin: float | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Trajectory:
    """Run a rule on a system, or on a batch of them, and record observables on a schedule.

    ``system`` (see :func:`packing_jax.spheres.system.stack`), the rule's hyperparameters, ``key`` and ``start`` may
    have a leading replica axis; what has none is shared. With one key and R replicas, replica r gets
    ``fold_in(key, r)``. A replica's trajectory depends on its own system, rule, key and start only. That of spheres has
    the same bits in any batch and in chunks of any length; that of weights, which are floats, in any batch of the same
    width.

    Args:
        system: a :class:`packing_jax.System`, or any :class:`packing_jax.drive.kind.Problem`.
        rule: for spheres one of :mod:`packing_jax.spheres.rules`, or of a class of your own
            (:class:`packing_jax.spheres.rules.base.Rule`); otherwise what the system's ``prepare`` takes.
        steps: moves to make; absorbed replicas stop earlier, and keep their last measurement to the end.
        key: ``jax.random.key(seed)``, () or (R,).
        start: (N, dim) or (R, N, dim) positions in the unit of the box; independent uniform ones when None.
        record: name -> observable, a function of one configuration (of spheres a
            :class:`packing_jax.observables.Configuration`, of networks a ``Learner``). When None: activity, energy and
            msd of spheres, nothing of others. To record these and more, name them too; they are in
            :mod:`packing_jax.observables`.
        times: increasing steps from 0 to ``steps`` to record at; logarithmic ones when None.
        batch: replicas that move at the same time; chosen when None. For spheres only the speed depends on it. For
            weights it is the width of a device's block: another width rounds differently, so it is kept as the
            attribute ``width``.
        chunk_steps: steps of a compiled chunk; about half a second's worth when None. Only the speed depends on it.
        skin: for spheres only, the extra reach of the neighbour rows in mean diameters; tuned during the run when None.
            Only the speed depends on it.
        on_progress: called after every chunk.

    Returns:
        The records, the last configuration and the steps of absorption.

    Raises:
        PackingError: arguments out of range, positions not finite, or a replica whose moves diverged.
    """
    if _traced(system, rule, key, start):
        raise PackingError(
            "simulate runs on the host, and its arguments cannot be traced: give keys, one for each replica, as one "
            "array and not under jax.vmap; a derivative goes through packing_jax.derivatives.rollout.rollout"
        )
    if not callable(on_progress):
        raise PackingError(f"on_progress is {shown(on_progress)}; it must be a function of one argument")
    times = log_times(steps) if times is None else check_times(times, steps)
    kind, replicas, batched = prepared(system, rule, key, start, skin)
    if record is None:
        record = DEFAULT_RECORD if isinstance(system, System) else {}
    batch = default_batch(kind, replicas) if batch is None else batch
    results: dict[int, Result] = {}
    for index, result in run(kind, replicas, times, check_record(record), batch, chunk_steps, on_progress):
        if result.failed:
            raise PackingError(f"replica {index} {result.reason}")
        results[index] = result
    ordered = [results[r] for r in range(len(results))]
    final = {name: np.stack([one.final[name] for one in ordered]) for name in ordered[0].final}
    if isinstance(system, System):
        final["positions"] = final["positions"] * np.asarray(system.box).reshape(-1, 1, 1)

    def pick(values: np.ndarray) -> np.ndarray:
        return values if batched else np.asarray(values[0])

    return Trajectory(
        times=times,
        records={name: pick(np.stack([one.records[name] for one in ordered])) for name in record},
        final={name: pick(values) for name, values in final.items()},
        absorbed_at=pick(np.array([one.absorbed_at for one in ordered], np.int32)),
        parameters=_parameters(system, rule, (len(ordered),) if batched else ()),
        attributes=_attributes(system, rule) | ({} if kind.exact else {"width": batch}),
    )


def check_record(record: Any) -> Mapping[str, Observable]:
    """The record itself, if it is a mapping from names to functions.

    Raises:
        PackingError: it is not.
    """
    if not isinstance(record, Mapping):
        raise PackingError(
            f"record is of type {type(record).__name__}; it must be a dict from names to functions, such as "
            '{"far": farthest}'
        )
    for name, one in record.items():
        if not isinstance(name, str):
            raise PackingError(f"an observable is called {shown(name)}; its name must be a text")
        if not callable(one):
            raise PackingError(f"the observable {name} is of type {type(one).__name__}; it must be a function")
    return record


def prepared(system: Any, rule: Any, key: Array, start: Any, skin: float | None = None) -> tuple[Kind, Replicas, bool]:
    """The kind and the replicas for :func:`packing_jax.drive.run.run`, and whether an argument had a replica axis.

    Raises:
        PackingError: an argument out of range, or arguments that do not fit together.
    """
    if isinstance(system, System):
        replicas, batched = gather_replicas(system, rule, key, start)
        return particles_of(replicas, skin), replicas, batched
    if skin is not None:
        raise PackingError("a skin belongs to spheres, which have neighbours; omit it")
    if not isinstance(system, Problem):
        raise PackingError(
            f"the system is of type {type(system).__name__}; it must be a packing_jax.System, for several "
            "packing_jax.stack([...]), or an object with the method prepare of packing_jax.drive.kind.Problem"
        )
    with calling(f"prepare of the {type(system).__name__}", "a method as packing_jax.drive.kind.Problem describes"):
        return system.prepare(rule, key, start)


def _traced(*arguments: Any) -> bool:
    try:
        leaves = jax.tree.leaves(arguments)
    except (RecursionError, SystemError) as error:  # the latter is how jax 0.12 passes the former on
        raise PackingError("an argument is nested too deeply; it must be a tree of some levels") from error
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


# --- parameters and attributes of a trajectory ----------------------------------------------------------------


def _parameters(system: Any, rule: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """phi of spheres, and the numbers that the rule holds, by their names; one for all replicas or one for each."""
    found = {
        # the learning rate is the kick of SGD, as in the stores of sweeps
        "kick" if name == "learning_rate" else name: np.asarray(leaf)
        for name, leaf in named_leaves(rule).items()
        if np.shape(leaf) in ((), shape)
    }
    if isinstance(system, System):
        exact = replace(
            system, diameters=np.asarray(system.diameters, np.float64), box=np.asarray(system.box, np.float64)
        )
        found["phi"] = np.asarray(exact.phi)
    return found


def _attributes(system: Any, rule: Any) -> dict[str, Any]:
    known = {"particles": system.particles, "dim": system.dim} if isinstance(system, System) else {}
    return {**known, "rule": type(rule).__name__.lower()}


def _dataset(made: Trajectory) -> "xr.Dataset":
    import xarray as xr  # takes a third of a second

    replica = ("replica",) * np.ndim(made.absorbed_at)

    def named(name: str, values: np.ndarray, *dims: str) -> tuple[tuple[str, ...], np.ndarray]:
        known = (*replica, *dims)
        return (*known, *(f"{name}_{axis}" for axis in range(values.ndim - len(known)))), values

    records = {name: named(name, values, "time") for name, values in made.records.items()}
    arrays = {"absorbed_at": named("absorbed_at", made.absorbed_at)}
    for name, values in made.final.items():
        arrays[name] = named(name, values, *(("particle", "axis") if name == "positions" else ()))
    taken = {*arrays, "time", "replica", *(dim for dims, _ in (*records.values(), *arrays.values()) for dim in dims)}
    if clash := sorted(taken & records.keys()):
        raise PackingError(
            f"{', '.join(clash)} would be in the dataset twice, as a record and as an axis or a final value: "
            "record it under another name"
        )
    arrays = {**records, **arrays}
    coordinates = {"time": ("time", made.times), **({"replica": np.arange(len(made.absorbed_at))} if replica else {})}
    for name, values in made.parameters.items():
        if name not in arrays and name not in coordinates:
            coordinates[name] = (replica[: np.ndim(values)], values)
    return xr.Dataset(arrays, coordinates, dict(made.attributes))
