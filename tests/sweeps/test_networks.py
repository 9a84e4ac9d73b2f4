"""Sweeps of networks: cells of many shapes, disorder and noise, starts, divergence, the same bits however run."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_sweep import After, opened, tree

import packing_jax
from packing_jax import PackingError
from packing_jax.drive.run import run
from packing_jax.networks.data import Data
from packing_jax.networks.losses import Hinge
from packing_jax.networks.models import MLP
from packing_jax.networks.rules import heavy_ball, implicit_sgd, nag_gs, sgd
from packing_jax.networks.task import Task
from packing_jax.observables import learning
from packing_jax.sweeps.networks import Training, disorder_key
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.trained import weights_of


def blobs(width: int = 3, samples: int = 12, kappa: float = 0.2) -> Task:
    """Labels by the sign of one input.

    Args:
        width: hidden units.
        samples: P.
        kappa: margin.
    """
    model = MLP((2, width, 1), "tanh")

    def drawn(key):
        inputs = jax.random.normal(key, (samples, 2))
        return Data(inputs, jnp.sign(inputs[:, 0]))

    return Task(model.start, model.apply, Hinge(kappa, 1), data_from=drawn)


SMALL = {"task": blobs, "rule": "sgd", "steps": 60, "replicas": 2, "record_every": 20, "trust_rule": True}
AXES = {"width": (2, 3), "learning_rate": (0.05, 0.1), "momentum": 0.5, "batch_size": 4}


def small(**more):
    return Training(**{**SMALL, "axes": AXES, "measure": ("loss", "activity", "msd", "snapshots"), **more})


def go(directory, spec=None, **options):
    return run_sweep(small() if spec is None else spec, directory, **{"batch": 2, "checkpoint_seconds": 0.0} | options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("networks")
    assert go(directory)[:4] == (8, 8, 0, None)
    return directory


def test_the_store_has_every_number_as_an_axis(whole):
    results = opened(whole)
    assert results.attrs["axes"] == [
        *("width", "samples", "kappa"),
        *("learning_rate", "batch_size", "momentum", "weight_decay"),
    ]
    assert results["loss"].shape == (2, 1, 1, 2, 1, 1, 1, 2, 4)
    assert results["loss"].dtype == np.float32
    np.testing.assert_allclose(results["samples_per_weight"].squeeze(), [12 / 6, 12 / 9])
    weights = results["weights"].squeeze().values
    assert weights.shape == (2, 2, 2, 9)
    assert np.isnan(weights[0, ..., 6:]).all()
    assert np.isfinite(weights[1]).all()


def test_disorder_is_that_of_the_task_and_noise_is_everybodys_own(whole):
    snapshots = opened(whole)["snapshots"].squeeze().values  # width, rate, replica, time, weight
    np.testing.assert_array_equal(snapshots[:, 0, :, 0], snapshots[:, 1, :, 0])
    assert not np.array_equal(snapshots[1, 0, 0, 0], snapshots[1, 0, 1, 0])
    kind, replicas = small().checked().build([(3, 12, 0.2, 0.05, 4, 0.5, 0.0, r) for r in (0, 1)])
    assert len({tuple(key) for key in np.asarray(replicas.key).tolist()}) == 2
    assert not kind.exact
    keys = [disorder_key(0, (3, 12, 0.2), 0), disorder_key(0, (3, 12, 0.2), 1), disorder_key(1, (3, 12, 0.2), 0)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 3


def test_numbers_that_only_differ_run_beside_one_another():
    spec = small(axes={**AXES, "kappa": (0.1, 0.2), "weight_decay": (0.0, 0.1)}).checked()
    groups = {spec.group(name) for name in spec.cells.places()}
    assert len(groups) == 4  # widths and margins, which are part of the program
    spec = Training(task="regression", axes={"scale": (0.5, 1.0), "noise": (0.1, 0.2), "learning_rate": (0.1, 0.2)})
    assert len({spec.checked().group(name) for name in spec.checked().cells.places()}) == 1


def test_weights_come_back_as_a_pytree(whole):
    first, second = weights_of(whole, blobs, width=2, learning_rate=0.1, replica=1)
    assert (first["w"].shape, second["w"].shape) == ((2, 2), (2, 1))
    stored = opened(whole)["weights"].squeeze().values[0, 1, 1]
    np.testing.assert_array_equal(np.concatenate([first["w"].ravel(), second["w"].ravel()]), stored[:6])
    assert weights_of(whole, blobs, width=3, learning_rate=0.1)[0]["w"].shape == (2, 2, 3)
    early = weights_of(whole, blobs, step=20, width=2, learning_rate=0.1, replica=1)
    assert not np.array_equal(early[0]["w"], first["w"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"width": 2}, "several values of learning rate"),
        ({"width": 4, "learning_rate": 0.1}, "no width 4"),
        ({"depth": 4}, "no axis depth"),
        ({"width": 2, "learning_rate": 0.1, "step": 30}, "the nearest is of step"),
    ],
)
def test_weights_that_are_not_there(whole, words, sentence):
    with pytest.raises(PackingError, match=sentence):
        weights_of(whole, blobs, **words)


def test_stopped_and_resumed_it_has_the_same_bytes(whole, tmp_path):
    there = tmp_path / "there"
    assert go(there, chunk_steps=7, stop=After(3)).stopped == "SIGTERM"
    assert go(there, chunk_steps=7, resume=True, stop=After(4)).stopped == "SIGTERM"
    assert go(there, resume=True)[:4] == (8, 8, 0, None)
    assert _arrays(there) == _arrays(whole)


def test_a_cell_comes_out_again_and_more_cells_leave_the_others(whole, tmp_path):
    assert rerun(whole, 5, small())[0]
    few = small(axes={**AXES, "learning_rate": 0.1}, replicas=1, steps=40)
    go(tmp_path / "there", few)
    go(tmp_path / "there", small(), resume=True)
    one, other = opened(tmp_path / "there"), opened(whole)
    np.testing.assert_array_equal(one["weights"], other["weights"])
    np.testing.assert_array_equal(one["loss"].sel(time=[0, 20, 40, 60]), other["loss"])


def test_runs_go_on_from_the_weights_of_a_store(whole, tmp_path):
    hot = small(rule="langevin", axes={"width": (2, 3), "learning_rate": 0.1, "temperature": 1e-3}, start_from=whole)
    with pytest.raises(PackingError, match=r"no learning rate|no momentum|several values"):
        go(tmp_path / "none", small(rule="langevin", axes={"width": (2, 3), "learning_rate": 0.2}, start_from=whole))
    go(tmp_path / "there", hot)
    start = opened(tmp_path / "there")["snapshots"].squeeze().values[..., 0, :]  # width, replica, weight
    np.testing.assert_array_equal(start, opened(whole)["weights"].squeeze().sel(learning_rate=0.1))
    assert rerun(tmp_path / "there", 3, hot)[0]
    go(tmp_path / "other", small(seed=1))
    with pytest.raises(PackingError, match="does not hold the weights from which"):
        go(tmp_path / "there", small(**_same(hot, start_from=tmp_path / "other")), resume=True)


def _same(spec, **more):
    return {"rule": spec.rule, "axes": spec.axes, **more}


def test_float64_is_stored_as_such(tmp_path):
    go(tmp_path, small(precision="float64", axes={"learning_rate": 0.1}, replicas=1))
    results = opened(tmp_path)
    assert (results["loss"].dtype, results["weights"].dtype) == (np.float64, np.float64)
    assert jnp.zeros(1).dtype == np.float32


def test_a_replica_that_diverges_is_an_outcome_with_its_step(tmp_path):
    spec = Training(task="regression", axes={"learning_rate": (0.1, 1e3)}, steps=60, replicas=2, record_every=20)
    outcome = go(tmp_path, spec)
    assert (outcome.done, outcome.failed, outcome.diverged) == (4, 2, 2)
    assert "diverged at step" in outcome.reasons[0]
    results = opened(tmp_path).squeeze()
    assert results["failed"].values.tolist() == [[0, 0], [1, 1]]
    assert ((results["steps_done"].values[1] > 0) & (results["steps_done"].values[1] < 60)).all()
    assert np.isnan(results["loss"].values[1, :, -1]).all()


def test_rules_of_a_users(tmp_path):
    def slow(rate: float = 0.1) -> optax.GradientTransformation:
        """A descent.

        Args:
            rate: of it.
        """
        return optax.sgd(rate)

    go(tmp_path, small(rule=slow, axes={"rate": (0.1, 0.2), "batch_size": 4}, replicas=1, measure=("loss",)))
    assert opened(tmp_path)["loss"].sizes["rate"] == 2


@pytest.mark.parametrize(
    ("name", "numbers", "rule"),
    [
        ("noisy-sgd", {"learning_rate": 0.1, "noise": 0.2, "momentum": 0.5}, sgd(heavy_ball(0.1, 0.5), 4, noise=0.2)),
        ("implicit-sgd", {"learning_rate": 0.01}, implicit_sgd(0.01, 4)),
        (
            "nag-gs",
            {"learning_rate": 0.3, "mu": 0.1},
            sgd(jax.tree_util.Partial(nag_gs, learning_rate=0.3, mu=0.1, gamma=1.0), 4),
        ),
    ],
)
def test_rules_of_a_name_are_the_functions(tmp_path, name, numbers, rule):
    spec = small(
        rule=name, axes={**numbers, "batch_size": 4}, measure=("snapshots",), steps=5, replicas=1, record_every=1
    )
    go(tmp_path / "there", spec)
    cell = next(iter(spec.checked().cells.places()))
    kind, replicas = spec.checked().build([cell])
    points = replicas._replace(rule=jax.tree.map(lambda leaf: np.asarray(leaf)[None], rule))
    ((_, by_hand),) = run(kind, points, np.arange(6, dtype=np.int32), {"w": learning.weights})
    assert np.ptp(by_hand.records["w"], axis=0).all()
    np.testing.assert_array_equal(opened(tmp_path / "there").weights.values.ravel(), by_hand.records["w"][-1])


def test_a_worker_gets_the_fields_and_makes_the_rest():
    import cloudpickle  # as Dask does

    spec = small(measure=("overlap=0.1",)).checked()
    spec.model.points(spec.axes)
    again = pickle.loads(cloudpickle.dumps(spec))
    assert again.axes == spec.axes
    assert again.record["overlap"] is spec.record["overlap"]
    assert "model" not in again.__dict__


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"task": "perceptrons"}, "there is no task 'perceptrons'"),
        ({"rule": "sdg"}, "the rule is 'sdg'"),
        ({"axes": {"rate": 0.1}}, "rate is not a number"),
        ({"axes": {"batch_size": 13}}, "a batch of 13 samples is larger than the data, which have 12"),
        ({"axes": {"batch_size": -1}}, "a batch of -1 samples"),
        ({"axes": {"batch_size": 1.5}}, "whole number"),
        ({"axes": {"learning_rate": (0.1, 0.1)}}, "listed twice"),
        ({"axes": {"learning_rate": np.inf}}, "finite"),
        ({"rule": "langevin", "axes": {"temperature": -1.0}}, "temperature is -1.0"),
        ({"rule": "nag-gs", "axes": {"gamma": 0.0}}, "gamma is 0.0; it must be above 0"),
        ({"rule": "noisy-sgd", "axes": {"noise": -0.1}}, "standard deviation of the noise is -0.1"),
        ({"settings": {"sampling": "some"}}, "sampling is 'some'"),
        ({"measure": ("lost",)}, "what is recorded is 'lost'"),
        ({"measure": ("overlap",)}, "overlap with a width"),
        ({"steps": 0}, "at least 1"),
        ({"replicas": 0}, "0 replicas"),
        ({"waits": (61,)}, "waiting time 61"),
        ({"seed": -1}, "the seed is -1"),
        ({"precision": "float16"}, "the precision is 'float16'"),
        ({"task": lambda n: n}, "without a default"),
        ({"task": lambda n=1: n}, "must make a"),
        ({"task": lambda seed=1: seed}, "cannot be called seed"),
        ({"start_from": "nowhere"}, "nowhere is not a directory"),
        ({"start": np.zeros(3)}, "the start is"),
        ({"record": {"kappa": np.mean}}, "cannot be called 'kappa'"),
    ],
)
def test_refused_in_a_sentence_with_nothing_left_behind(tmp_path, words, sentence):
    words = {"axes": {}, **words}
    with pytest.raises(PackingError, match=sentence) as caught:
        go(tmp_path / "there", small(**words))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "there").exists()


# --- however it is run ----------------------------------------------------------------------------------------

_PLAIN = Training(
    task="random-labels",
    rule="sgd",
    axes={"inputs": 4, "width": 6, "samples": (10, 20), "learning_rate": (0.05, 0.1), "batch_size": 4},
    steps=400,
    replicas=3,
    record_every=100,
)
_CHILD = """
import sys
from pathlib import Path
from test_networks import _PLAIN, go
go(Path(sys.argv[1]), _PLAIN, resume=Path(sys.argv[1], "results.zarr").exists(), chunk_steps=20)
"""


def _child(directory, **environment):
    there = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(packing_jax.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(there)} | environment
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(directory)], env=environment)


def _arrays(directory):
    """Every chunk of numbers, without what describes the store."""
    return {name: content for name, content in tree(directory).items() if not Path(name).name.startswith(".")}


@pytest.mark.validation
def test_the_same_bytes_on_eight_devices_after_kills_and_on_dask_workers(tmp_path):
    go(tmp_path / "one", _PLAIN)
    eight = _child(tmp_path / "eight", XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert eight.wait(300) == 0
    assert _arrays(tmp_path / "eight") == _arrays(tmp_path / "one")

    rng, killed = np.random.default_rng(0), 0
    while True:
        child = _child(tmp_path / "killed")
        begun = time.monotonic()
        manifest = tmp_path / "killed" / "manifest.jsonl"
        while child.poll() is None and not (manifest.exists() and b"session" in manifest.read_bytes()):
            time.sleep(0.05)
        time.sleep(4.0 * rng.random() + (killed > 3) * (time.monotonic() - begun))
        if child.poll() is not None or killed == 5:
            assert child.wait(300) == 0
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed += 1
    assert killed
    assert _arrays(tmp_path / "killed") == _arrays(tmp_path / "one")


@pytest.mark.validation
def test_the_same_bytes_on_three_dask_workers_one_of_them_killed(tmp_path):
    from distributed import Client, LocalCluster

    go(tmp_path / "one", _PLAIN)
    with LocalCluster(3, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        pids = list(client.run(os.getpid).values())
        seen = []

        def killing(progress):
            if progress.done > 0 and not seen:
                seen.append(progress)
                os.kill(pids[0], signal.SIGKILL)

        outcome = go(tmp_path / "dask", _PLAIN, client=client, on_progress=killing, chunk_steps=20)
    assert seen
    assert (outcome.done, outcome.failed) == (12, 0)
    assert _arrays(tmp_path / "dask") == _arrays(tmp_path / "one")


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_task.py"


def test_the_example(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[2])}
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()[1:9]]
    assert [int(row[2]) for row in rows[:2]] == [16, 16]
    assert [int(row[2]) for row in rows[-2:]] == [0, 0]
    assert done.stdout.splitlines()[-1] == "{'slope': (16, 2, 16), 'sum': (16, 16)}"
