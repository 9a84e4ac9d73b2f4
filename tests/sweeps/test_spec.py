"""A specification of one's own: other axes, arrays of other shapes and types, and everything a sweep of spheres has."""

import contextlib
import dataclasses
import shutil
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from floats import Descent, Floats, activity, loss, overlaps

from packing_jax.criticality import open_results
from packing_jax.drive.kind import Replicas
from packing_jax.drive.schedule import linear_times
from packing_jax.errors import PackingError
from packing_jax.sweeps.progress import Stop
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import Cells, Layout, Table, Variable, description
from packing_jax.sweeps.spec import Spec
from packing_jax.sweeps.status import format_status, status


def violated(seen):
    """How many samples are violated, and which of the first three."""
    wrong = overlaps(*seen) > 0
    return jnp.append(wrong[:3].astype(jnp.int32), jnp.sum(wrong.astype(jnp.int32)))


@dataclass(frozen=True)
class Perceptrons(Spec):
    """Perceptrons of several widths on random patterns: dim changes shapes, load and rate do not."""

    kind = "perceptrons"
    unit = "weight"
    control = "load"
    labels = {"load": ("patterns per weight", "1"), "w": ("weights", "1")}  # noqa: RUF012 - never changed

    dim: tuple[int, ...] = (6, 10)
    load: tuple[float, ...] = (0.5, 6.0)
    rate: tuple[float, ...] = (0.1,)
    steps: int = 60
    replicas: int = 3
    seed: int = 0

    @property
    def axes(self):
        return {"dim": self.dim, "load": self.load, "rate": self.rate}

    @property
    def fixed(self):
        return {"seed": self.seed}

    @property
    def record(self):
        return {"activity": activity, "loss": loss, "violated": violated}

    @property
    def finals(self):
        return {"w": Variable(("weight",), (max(self.dim),)), "b": Variable()}

    @property
    def tables(self):
        return {"patterns": Table(("dim", "load"), np.rint(np.outer(self.dim, self.load)).astype(np.int32))}

    def times(self):
        return linear_times(self.steps, 10)

    def group(self, name):
        return name[:2]

    def build(self, names):
        (dim, load) = names[0][:2]
        data = np.random.default_rng([self.seed, dim]).normal(size=(round(dim * load), dim)).astype(np.float32)
        rng = [np.random.default_rng([self.seed, number, int(1e6 * rate)]) for *_, rate, number in names]
        start = {
            "w": jnp.stack([jnp.asarray(0.1 * one.normal(size=dim), jnp.float32) for one in rng]),
            "b": jnp.zeros(len(names)),
        }
        rate = jnp.array([name[2] / load for name in names])  # so slow that many patterns are not learned in time
        keys = jnp.stack([jax.random.key_data(jax.random.key(int(one.integers(2**31)))) for one in rng])
        return Floats(), Replicas(None, Descent(rate, jnp.full_like(rate, 0.5), 4), keys, start, jnp.asarray(data))


SPEC = Perceptrons()


class After(Stop):
    """Stops after so many chunks."""

    def __init__(self, chunks):
        super().__init__()
        self.left = chunks

    def reason(self):
        self.left -= 1
        return "SIGTERM" if self.left <= 0 else None


def go(directory, spec=SPEC, **options):
    return run_sweep(spec, directory, **{"chunk_steps": 20, "checkpoint_seconds": 0.0} | options)


def tree(directory):
    root = directory / "results.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def opened(directory):
    return xr.open_zarr(directory / "results.zarr").load()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    outcome = go(directory)
    assert (outcome.done, outcome.total, outcome.failed, outcome.notes) == (12, 12, 0, ())
    return directory


def test_the_store_has_the_axes_and_arrays_of_the_specification(whole):
    results = opened(whole)
    cells = ("dim", "load", "rate", "replica")
    assert {name: one.dims for name, one in results.data_vars.items()} == {
        "activity": (*cells, "time"), "loss": (*cells, "time"), "violated": (*cells, "time", "violated_0"),
        "w": (*cells, "weight"), "b": cells, "patterns": ("dim", "load"),
        "absorbed_at": cells, "steps_done": cells, "failed": cells,
    }  # fmt: skip
    assert results["dim"].values.tolist() == [6, 10]
    assert results["violated"].dtype == np.int32
    assert results["patterns"].values.tolist() == [[3, 36], [5, 60]]
    assert results["load"].attrs == {"long_name": "patterns per weight", "units": "1"}
    attributes = results.attrs
    assert (attributes["kind"], attributes["axes"], attributes["block_width"]) == (
        "perceptrons",
        ["dim", "load", "rate"],
        3,
    )
    assert "threads" in attributes["versions"] or not attributes["versions"]["device"].startswith("cpu")


def test_phi_c_is_of_spheres(whole):
    with pytest.raises(PackingError, match="holds a sweep of perceptrons, and phi_c is of spheres"):
        open_results(whole)


def test_what_is_stored_is_what_the_driver_gave(whole):
    """Few patterns are learned, many are not; records agree with one another and with the final weights."""
    results = opened(whole)
    assert np.all(results["absorbed_at"].sel(load=0.5) >= 0)
    assert np.all(results["absorbed_at"].sel(load=6.0) == -1)
    count = results["violated"].isel(violated_0=3)
    np.testing.assert_allclose(count / results["patterns"], results["activity"], rtol=1e-6)
    for name, dim in (("w", 6), ("w", 10)):
        weights = results[name].sel(dim=dim).values
        assert np.all(np.isfinite(weights[..., :dim]))
        assert np.all(np.isnan(weights[..., dim:]))
    _, replicas = SPEC.build([(10, 6.0, 0.1, 0)])
    last = {"w": jnp.asarray(results["w"].values[1, 1, 0, 0]), "b": jnp.asarray(results["b"].values[1, 1, 0, 0])}
    assert float(activity((replicas.shared, last))) == pytest.approx(results["activity"].values[1, 1, 0, 0, -1])


def test_stopped_again_and_again(whole, tmp_path):
    outcome, sessions = go(tmp_path, stop=After(1)), 1
    while outcome.stopped:
        outcome, sessions = go(tmp_path, resume=True, stop=After(1)), sessions + 1
    assert sessions > 5
    assert tree(tmp_path) == tree(whole)


def test_more_steps_replicas_and_values(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    longer = dataclasses.replace(SPEC, steps=90, replicas=4, rate=(0.2,))
    assert go(tmp_path / "copy", longer, resume=True).done == 32
    go(tmp_path / "fresh", dataclasses.replace(longer, rate=(0.1, 0.2)))
    xr.testing.assert_identical(opened(tmp_path / "copy").drop_attrs(), opened(tmp_path / "fresh").drop_attrs())


def test_arrays_do_not_change_their_shapes(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(PackingError, match="no larger replicas can be added"):
        go(tmp_path / "copy", dataclasses.replace(SPEC, dim=(6, 12)), resume=True)
    assert tree(tmp_path / "copy") == tree(whole)


def test_the_width_is_that_of_the_store(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    with pytest.raises(PackingError, match="batches of 3, and its numbers round differently in batches of 2"):
        go(tmp_path / "copy", SPEC, resume=True, batch=2)
    small = dataclasses.replace(SPEC, dim=(6,), load=(6.0,))
    go(tmp_path / "three", small, batch=3)
    assert description(tmp_path / "three")["block_width"] == 3
    assert go(tmp_path / "three", dataclasses.replace(small, replicas=4), resume=True).done == 4
    go(tmp_path / "fresh", dataclasses.replace(small, replicas=4), batch=3)
    xr.testing.assert_identical(opened(tmp_path / "three"), opened(tmp_path / "fresh"))


def test_status_and_rerun(whole):
    facts = status(whole)
    assert (facts["kind"], facts["done"], facts["absorbed"], facts["active"]) == ("perceptrons", 12, 6, 6)
    between = {"axis": "load", "low": 0.5, "high": 6.0}
    assert facts["transitions"] == [{**between, "at": {"dim": dim, "rate": 0.1}} for dim in (6, 10)]
    assert "load_c so far: between 0.5 and 6 (dim 6, rate 0.1)" in format_status(whole, facts)
    stopped = format_status(whole, {**facts, "missing": 1})
    assert stopped.endswith("to continue: run_sweep with its specification and resume=True")
    assert format_status(whole, {**facts, "missing": 1, "kind": "spheres"}).endswith(
        f"to continue: packing-jax sweep --resume {whole}"
    )
    same, sentence = rerun(whole, 9, SPEC)
    assert (same, sentence) == (
        True,
        "cell 9 (dim 10, load 6, rate 0.1, replica 0) comes out again with the same bytes",
    )


def test_a_store_names_no_code(whole, tmp_path):
    """The caller says again what a store holds, and is believed only where it agrees."""
    shutil.copytree(whole, tmp_path / "copy")
    for act in (lambda: go(tmp_path / "copy", None, resume=True), lambda: rerun(tmp_path / "copy", 0)):
        with pytest.raises(PackingError, match="a sweep of perceptrons: give its specification again"):
            act()

    @dataclass(frozen=True)
    class Others(Perceptrons):
        kind = "others"

    @dataclass(frozen=True)
    class Changed(Perceptrons):
        @property
        def fixed(self):
            return {"seed": self.seed, "loss": "another"}

    for spec, words in (
        (Others(), "a sweep of perceptrons and not of others"),
        (Changed(), "another specification of perceptrons"),
        (dataclasses.replace(SPEC, seed=1), "seed is 0 there and 1 here"),
        (dataclasses.replace(SPEC, steps=50), "there are 60 steps there and 50 here"),
    ):
        with pytest.raises(PackingError, match=words):
            go(tmp_path / "copy", spec, resume=True)
    assert tree(tmp_path / "copy") == tree(whole)


# --- what cannot be stored ------------------------------------------------------------------------------------

GOOD = Layout(
    Cells({"a": (1, 2)}, 2), np.array([0, 5], np.int32), {"r": Variable()}, {"x": Variable(("n",), (3,))}, {}, {}, {}
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cells": Cells({"a": ()}, 2)}, "the axis a"),
        ({"cells": Cells({"a": (1, 1)}, 2)}, "different finite numbers"),
        ({"cells": Cells({"a": (1, float("nan"))}, 2)}, "different finite numbers"),
        ({"cells": Cells({"../a": (1,)}, 2)}, "cannot name"),
        ({"cells": Cells({"time": (1,)}, 2)}, "cannot name"),
        ({"records": {"x": Variable()}}, "is used once"),
        ({"records": {"failed": Variable()}}, "is used once"),
        ({"finals": {"x": Variable(("a",), (3,))}}, "do not go together"),
        ({"finals": {"x": Variable(("n",), (3, 2))}}, "do not go together"),
        ({"finals": {"x": Variable(("n",), (3,), "object")}}, "holds object; a store holds numbers"),
        ({"finals": {"x": Variable(("n",), (0,))}}, "there is nothing to store"),
        ({"finals": {"x": Variable(("r",), (3,))}}, "r is an array and also an axis of another one"),
        ({"finals": {"x": Variable(("n",), (2**40,))}}, "GiB; the limits are"),
        ({"cells": Cells({"a": (1,)}, 10**7)}, "10000000 cells"),
    ],
)
def test_a_layout_that_cannot_be_stored(change, words):
    GOOD.check()
    with pytest.raises(PackingError, match=words):
        GOOD._replace(**change).check()


def test_arrays_that_are_not_those_of_the_layout(tmp_path):
    @dataclass(frozen=True)
    class Wrong(Perceptrons):
        wrong: str = "w"

        @property
        def finals(self):
            name, shape = {"w": ("w", (5,)), "v": ("v", (10,)), "dims": ("w", (10, 1))}[self.wrong]
            return {name: Variable(tuple(f"axis_{i}" for i in range(len(shape))), shape), "b": Variable()}

    for wrong, words in (("w", "the shape"), ("v", r"gave \['activity', 'b', "), ("dims", "the shape")):
        with pytest.raises(PackingError, match=words), contextlib.suppress(FileNotFoundError):
            go(tmp_path / wrong, Wrong(wrong=wrong))
