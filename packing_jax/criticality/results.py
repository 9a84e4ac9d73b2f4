"""The input of the estimates of phi_c: a trajectory, a dataset or the directory of a sweep, as one kind of dataset.

A trajectory is recognised by its method ``to_xarray``: nothing here depends on how results were made.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from packing_jax.criticality.stationarity import Drift, final_activity, final_drift
from packing_jax.errors import PackingError
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.schema import stored_kind

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

_P = ParamSpec("_P")
_R_co = TypeVar("_R_co", covariant=True)

_CELL = ("phi", "kick", "batch_fraction")
_PLURALS = {"particles": "numbers of particles"}


@runtime_checkable
class HasDataset(Protocol):
    """A trajectory, such as :func:`packing_jax.simulate` returns."""

    def to_xarray(self) -> xr.Dataset:
        """Its records as a dataset."""
        ...


#: A trajectory, a dataset, or the directory of a sweep.
Results: TypeAlias = "HasDataset | xr.Dataset | str | os.PathLike[str]"


@dataclass(frozen=True)
class Scan:
    """The replicas of one kick and batch fraction; NaN (absorbed_at: -1) where not run."""

    time: Array
    phi: Array
    activity: Array  #: (phi, replica, time)
    absorbed_at: NDArray[np.int64]  #: (phi, replica)
    final: Array  #: (phi, replica)
    drift: Drift
    particles: int | None
    dim: int | None

    @property
    def steps(self) -> int:
        """The last recorded step."""
        return int(self.time[-1])

    @property
    def absorption(self) -> Array:
        """Step of absorption, -1 where active, NaN where not run, (phi, replica)."""
        return np.where(np.isnan(self.final), np.nan, self.absorbed_at)

    @property
    def absorbed(self) -> Array:
        """1 where the replica was absorbed, 0 where active, NaN where not run, (phi, replica)."""
        return np.where(np.isnan(self.final), np.nan, self.absorbed_at >= 0)


# --- one kind of dataset --------------------------------------------------------------------------------------


def as_sweep(results: Results) -> xr.Dataset:
    """Results of any form as a dataset with the dims phi, kick, batch_fraction, replica and time.

    Args:
        results: what :func:`packing_jax.simulate` returns, the directory of a sweep, or a dataset. A dataset without
            the dim phi needs a coordinate phi, and may have kick and batch_fraction, each () or (replica,); replicas
            with the same values are grouped.

    Raises:
        PackingError: none of these, packing fractions that are not known, or no activity.
    """
    import xarray as xr

    if isinstance(results, (str, os.PathLike)):
        return _one_of(open_results(results))
    found: Any = results.to_xarray() if hasattr(results, "to_xarray") else results
    if not isinstance(found, xr.Dataset):
        raise PackingError(
            f"the results are a {type(results).__name__}; they must be what simulate returns, an xarray.Dataset, or "
            "the directory that packing-jax run or sweep wrote"
        )
    if "phi" not in found.dims:
        found = _in_a_grid(found)
    check_results(found)
    return _one_of(found)


def other_axes(results: xr.Dataset) -> list[str]:
    """Axes of a sweep beyond phi, kick and batch fraction, such as `particles` where there are several sizes."""
    return [name for name in results.attrs.get("axes", ()) if name not in _CELL and name in results.dims]


def by_other_axes(results: xr.Dataset) -> list[tuple[dict[str, Any], xr.Dataset]]:
    """Pairs (values of the other axes, the results there); one pair of no values and all results if there are none."""
    others, parts = other_axes(results), []
    for values in itertools.product(*(results[name].values.tolist() for name in others)):
        where = dict(zip(others, values, strict=True))
        part = results.sel(where, drop=True).assign_attrs(where)
        if "particles" in where and "particle" in part.dims:  # smaller systems are filled up to the largest
            part = part.isel(particle=slice(where["particles"]))
        parts.append((where, part))
    return parts


def _one_of(results: xr.Dataset) -> xr.Dataset:
    for name in other_axes(results):
        if results.sizes[name] != 1:
            raise PackingError(
                f"these results have {results.sizes[name]} {_PLURALS.get(name, f'values of {name}')}, and an estimate "
                f"is of one: open them by packing_jax.criticality.open_results and choose it by .sel({name}=...)"
            )
    return by_other_axes(results)[0][1]


def _in_a_grid(results: xr.Dataset) -> xr.Dataset:
    """The replicas of a dataset, arranged by phi, kick and batch fraction."""
    import xarray as xr

    for name in ("activity", "absorbed_at"):
        if name not in results.data_vars:
            raise PackingError(f"these results lack the variable '{name}': record it")
    if "phi" not in results.coords:
        raise PackingError("these results lack their packing fractions: give them a coordinate phi, () or (replica,)")
    flat = results if "replica" in results.dims else results.expand_dims("replica")
    count = flat.sizes["replica"]
    unknown = {"kick": np.nan, "batch_fraction": 1.0}
    values = [
        np.broadcast_to(np.asarray(flat[axis].values if axis in flat.coords else unknown[axis], float), count)
        for axis in _CELL
    ]
    axes, places = zip(*(np.unique(value, return_inverse=True) for value in values), strict=True)
    number = np.zeros(count, int)
    seen: dict[tuple[int, ...], int] = {}
    for i, place in enumerate(zip(*places, strict=True)):
        number[i] = seen[place] = seen.get(place, -1) + 1
    at = (*places, number)
    shape = (*map(len, axes), int(number.max()) + 1)
    activity = flat["activity"].transpose("replica", "time").values
    arrays = {
        "activity": np.full((*shape, activity.shape[1]), np.nan),
        "absorbed_at": np.full(shape, -1),
        "steps_done": np.zeros(shape, int),
    }
    arrays["activity"][at] = activity
    arrays["absorbed_at"][at] = flat["absorbed_at"].values
    arrays["steps_done"][at] = max(int(flat["time"].values[-1]), 1)
    dims = (*_CELL, "replica")
    return xr.Dataset(
        {name: ((*dims, "time")[: one.ndim], one) for name, one in arrays.items()},
        coords={
            **dict(zip(_CELL, axes, strict=True)),
            "replica": np.arange(shape[-1]),
            "time": flat["time"].values,
        },
        attrs=flat.attrs,
    )


def open_results(directory: str | os.PathLike[str]) -> xr.Dataset:
    """The sweep in DIR/results.zarr; all but the activity stays on the disk until it is asked for.

    What is read is checked against the checksums in DIR/manifest.jsonl.

    A sweep over numbers of particles has these as a dimension; an estimate takes one of them, ``.sel(particles=N)``.

    Raises:
        PackingError: no such directory, no store in it, a damaged store (with what would mend it), or a sweep of
            something else than spheres.
    """
    sweep = Reader(Path(directory))
    kind = stored_kind(sweep.attributes)
    try:
        _check_words(sweep.attributes)
        results = sweep.results(load=("activity",))
        check_results(results)
    except PackingError as error:
        if kind == "spheres":
            raise
        raise PackingError(f"{directory} holds a sweep of {kind}, and phi_c is of spheres: {error}") from error
    # a cell that an extension to more steps has not reached yet is not done
    late = (results["steps_done"] > 0) & (results["steps_done"] < sweep.last) & (results["failed"] == 0)
    results["steps_done"] = results["steps_done"].where(~late, 0)
    return results


def _check_words(attributes: Mapping[str, Any]) -> None:
    """Refuse a store whose dim, particles or rule is invalid; a missing one is allowed."""
    particles = attributes.get("particles", 1)
    many = particles if isinstance(particles, list) else [particles]
    for name, known in (
        ("dim", attributes.get("dim", 1) in range(1, 7)),
        ("particles", all(type(one) is int and one > 0 for one in many)),
        ("rule", isinstance(attributes.get("rule", ""), str)),
    ):
        if not known:
            raise PackingError(f"the store says {name} = {str(attributes[name])[:80]}; that is no sweep of spheres")


def was_run(results: xr.Dataset) -> xr.DataArray:
    """True for each replica whose record can be used: steps_done > 0, and not marked `failed`."""
    run = results["steps_done"] > 0
    return run & (results["failed"] == 0) if "failed" in results else run


def check_results(results: xr.Dataset) -> None:
    """Raise `PackingError` unless `results` has the coordinates and variables of a sweep.

    Coordinates phi, kick, batch_fraction, replica, time, and other axes; activity over all of them, absorbed_at and
    steps_done over all but the time.
    """
    coords = (*other_axes(results), *_CELL, "replica", "time")
    for name in coords:
        if name not in results.coords or results[name].dims != (name,):
            raise PackingError(f"these results lack the coordinate '{name}' that every sweep has")
        values = results[name].values
        if not values.size or len(np.unique(values)) != values.size:
            raise PackingError(f"the values of '{name}' must be one or more, all different")
    for name in ("activity", "absorbed_at", "steps_done"):
        dims = coords if name == "activity" else coords[:-1]
        if name not in results.data_vars:
            raise PackingError(f"these results lack the variable '{name}' that every sweep has")
        if set(results[name].dims) != set(dims):
            raise PackingError(f"'{name}' has dims {results[name].dims}: they must be {dims}")


# --- arrays ---------------------------------------------------------------------------------------------------


def scan_of(results: xr.Dataset, kick: int, batch_fraction: int) -> Scan:
    """The replicas of one kick and one batch fraction, given by their indices in a sweep."""
    cell = results.isel(kick=kick, batch_fraction=batch_fraction)
    time, phi = cell["time"].values.astype(float), cell["phi"].values.astype(float)
    activity = cell["activity"].where(was_run(cell)).transpose("phi", "replica", "time").values.astype(float)
    absorbed_at = cell["absorbed_at"].transpose("phi", "replica").values.astype(np.int64)
    change, error = final_drift(time, activity)
    final = np.where(np.isnan(change), np.nan, final_activity(time, activity, absorbed_at >= 0))
    # a replica whose record is not complete counts as not run
    activity = np.where(np.isnan(final)[..., None], np.nan, activity)
    dim = results.attrs.get("dim")
    return Scan(
        time,
        phi,
        activity,
        absorbed_at,
        final,
        Drift(change, error),
        number_of_particles(results),
        None if dim is None else int(dim),
    )


def number_of_particles(results: xr.Dataset) -> int | None:
    """The number of particles of a sweep, or of one of several in it; None where it is not known."""
    known = results["particles"].item() if "particles" in results.coords else results.attrs.get("particles")
    return None if known is None else int(known)


def _are_results(given: object) -> bool:
    return isinstance(given, (str, os.PathLike)) or hasattr(given, "to_xarray") or hasattr(given, "data_vars")


@runtime_checkable
class OfArraysOrResults(Protocol, Generic[_P, _R_co]):
    """An estimate that takes arrays, or results that have them."""

    @overload
    def __call__(self, results: Results, /, **how: int) -> _R_co: ...
    @overload
    def __call__(self, *args: _P.args, **keywords: _P.kwargs) -> _R_co: ...


def or_results(*fields: str) -> Callable[[Callable[_P, _R_co]], OfArraysOrResults[_P, _R_co]]:
    """Let an estimate take results instead of its arrays, which are these fields of a :class:`Scan`."""

    def decorate(estimate: Callable[_P, _R_co]) -> OfArraysOrResults[_P, _R_co]:
        @functools.wraps(estimate)
        def either(*args: Any, **keywords: Any) -> Any:
            alone = len(args) == 1 and not set(keywords) - {"draws", "seed"}
            if not (alone or any(map(_are_results, args))):
                return estimate(*args, **keywords)
            if not alone:
                raise PackingError("results bring all of an estimate's arrays; give either these or the results")
            results = as_sweep(args[0])
            for axis in _CELL[1:]:
                if results.sizes[axis] != 1:
                    raise PackingError(
                        f"these results have {results.sizes[axis]} values of '{axis}', and an estimate is of one: "
                        f"choose it by .sel({axis}=[...]), or take estimate_phi_c, which goes through all"
                    )
            scan = scan_of(results, 0, 0)
            return estimate(*(getattr(scan, name) for name in fields), **keywords)

        return either

    return decorate
