"""The self-check: a sound installation passes, each check fails on a broken piece of its own, and says so clearly."""

import importlib
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from packing_jax import random_words, versions
from packing_jax.commands import doctor, machine
from packing_jax.commands.doctor import Check
from packing_jax.spheres import neighbors as nb
from packing_jax.spheres import noise

PARTICLES = 1500  # enough for a grid of cells
NAMES = [
    "eager against jit",
    "float32 against float64",
    "neighbour rows against all pairs",
    "random words",
    "alone and in a batch",
    "row sums",
]

# the package's attributes of these names are functions
SGD = importlib.import_module("packing_jax.spheres.rules.sgd")
BRO = importlib.import_module("packing_jax.spheres.rules.bro")
SIMULATE = importlib.import_module("packing_jax.simulation")


@pytest.fixture(scope="module")
def sample() -> doctor._Sample:
    return doctor._Sample(PARTICLES)


def test_a_sound_installation_passes() -> None:
    seen: list[Check] = []
    checks = doctor.examine(PARTICLES, on_check=seen.append)
    assert [check.name for check in checks] == NAMES
    assert all(check.passed for check in checks), doctor.format_report([], checks)
    assert seen == checks
    assert all(check.seconds > 0 for check in checks)
    for check in checks:
        assert_one_sentence(check.detail)
    assert f"{PARTICLES:,} particles" in checks[2].detail
    assert f"all {PARTICLES * (PARTICLES - 1) // 2:,} pairs" in checks[2].detail


def assert_one_sentence(text: str) -> None:
    assert re.fullmatch(r"[A-Z].*\.", text)
    assert ". " not in text
    assert "\n" not in text


# --- each check can fail --------------------------------------------------------------------------------------


def test_a_compiler_that_computes_something_else_is_noticed(
    monkeypatch: pytest.MonkeyPatch, sample: doctor._Sample
) -> None:
    right = BRO.sum_of_kicks

    def off_by_a_thousandth_when_compiled(kicks: Any, size: jax.Array, *others: Any) -> tuple[jax.Array, jax.Array]:
        return right(kicks, size * 1.001 if isinstance(size, jax.core.Tracer) else size, *others)

    monkeypatch.setattr(BRO, "sum_of_kicks", off_by_a_thousandth_when_compiled)
    passed, detail = doctor._eager_against_jit(sample)
    assert not passed
    assert_one_sentence(detail)
    worst = re.search(r"differ by at most (\S+) diameters \(bro\)", detail)
    assert worst
    assert 1e-6 < float(worst[1]) < 1e-3


def test_wrong_matrix_products_are_noticed(monkeypatch: pytest.MonkeyPatch, sample: doctor._Sample) -> None:
    monkeypatch.setattr(doctor, "_products", lambda _: math.nan)
    passed, detail = doctor._eager_against_jit(sample)
    assert not passed
    assert "products by nan of the largest" in detail


def test_precisions_that_draw_differently_are_noticed(monkeypatch: pytest.MonkeyPatch, sample: doctor._Sample) -> None:
    right = noise.uniform

    def reflected_in_float64(words: jax.Array, dtype: np.dtype) -> jax.Array:
        return 1.0 - right(words, dtype) if np.dtype(dtype) == np.float64 else right(words, dtype)

    monkeypatch.setattr(noise, "uniform", reflected_in_float64)
    monkeypatch.setattr(random_words, "uniform", reflected_in_float64)  # what normal numbers are made of
    passed, detail = doctor._float32_against_float64(sample)
    assert not passed
    assert_one_sentence(detail)
    worst = re.search(r"in float32 and float64 differ by at most (\S+) diameters", detail)
    assert worst
    assert float(worst[1]) > 1e-3


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (lambda rows, own: rows.at[:, 0].set(own[:, 0]), r"miss [1-9][\d,]*, list 0 twice and add 0 false"),
        (lambda rows, own: jnp.where(rows == own, jnp.roll(rows, 1, axis=1), rows), r"list [1-9][\d,]* twice"),
        (lambda rows, own: jnp.where(rows == own, (own + PARTICLES // 2) % PARTICLES, rows), r"add [1-9][\d,]* false"),
    ],
    ids=["missing", "twice", "false"],
)
def test_wrong_neighbour_rows_are_noticed(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[[jax.Array, jax.Array], jax.Array], says: str
) -> None:
    right = nb.build

    def broken(*arguments: Any) -> nb.Neighbors:
        built = right(*arguments)
        own = jnp.broadcast_to(jnp.arange(PARTICLES, dtype=jnp.int32)[:, None], built.rows.shape)
        return replace(built, rows=breaks(built.rows, own))

    monkeypatch.setattr(nb, "build", broken)
    passed, detail = doctor._rows_against_all_pairs(doctor._Sample(PARTICLES))
    assert not passed
    assert_one_sentence(detail)
    assert re.search(says, detail), detail


def test_wrong_random_words_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_words, "_ROTATIONS", ((13, 15, 26, 7), (17, 29, 16, 24)))
    passed, detail = doctor._random_words(100)
    assert not passed
    assert detail.startswith("Of 100 pairs of random words, 100 differ from those of jax.random.fold_in, and 0 of 3")
    assert_one_sentence(detail)


def test_a_replica_that_its_batch_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SIMULATE.gather_replicas

    def other_keys_in_a_batch(*arguments: Any) -> Any:
        replicas, batched = right(*arguments)
        return (replicas._replace(key=replicas.key + np.uint32(1)) if batched else replicas), batched

    assert doctor._alone_and_in_a_batch()[0]
    monkeypatch.setattr(SIMULATE, "gather_replicas", other_keys_in_a_batch)
    passed, detail = doctor._alone_and_in_a_batch()
    assert not passed
    assert_one_sentence(detail)
    assert re.search(r"[1-9]\d* of the 400 coordinates", detail)


def _sums(values: list[jax.Array], first: float) -> jax.Array:
    """Row sums in which the first entry weighs differently, so that the order of the row matters."""
    weight = np.ones(values[0].shape[1], np.float32)
    weight[0] = first
    return jnp.stack([jnp.sum(value * weight[None], axis=1) for value in values])


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            lambda values, _, scene, *__: (_sums(values, 1 + 2.0**-22), scene.deep[:, 0]),
            r"and [1-9][\d,]* of them change",
        ),
        (lambda values, _, scene, *__: (1.0001 * _sums(values, 1.0), scene.deep[:, 0]), r"by at most \d\.\de-0[345]"),
    ],
    ids=["order", "value"],
)
def test_wrong_row_sums_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
    sample: doctor._Sample,
    broken: Callable[..., tuple[jax.Array, jax.Array]],
    says: str,
) -> None:
    monkeypatch.setattr(SGD, "exact_row_sum", broken)
    passed, detail = doctor._row_sums(sample)
    assert not passed
    assert_one_sentence(detail)
    assert re.search(says, detail), detail


def _no_kernel(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("INTERNAL: no kernel image is available.\nin a file of hundreds of lines")


def test_a_check_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor._Sample, "build", _no_kernel)
    monkeypatch.setattr(doctor, "simulate", _no_kernel)
    checks = doctor.examine(100)
    assert [check.name for check in checks] == NAMES
    assert [check.name for check in checks if check.passed] == ["random words"]
    for check in checks:
        if not check.passed:
            assert check.detail == "It stopped with RuntimeError: INTERNAL: no kernel image is available."


def test_an_interruption_is_not_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor._Sample, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        doctor.examine(100)


# --- its oracle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [0.05, 0.3, 0.49, 0.7])
def test_all_pairs_are_all_pairs(reach: float) -> None:
    n = 211
    coordinates = np.random.default_rng(0).integers(-(2**31), 2**31, (3, n), dtype=np.int32)
    x = coordinates / 2.0**32
    apart = x[:, :, None] - x[:, None, :]
    apart -= np.round(apart)
    distance = np.sqrt(np.sum(apart**2, axis=0))
    i, j = np.nonzero(np.triu(distance < reach, 1))
    found = doctor.all_pairs(coordinates, reach)
    order = np.lexsort((found.j, found.i))
    np.testing.assert_array_equal(found.i[order], i)
    np.testing.assert_array_equal(found.j[order], j)
    np.testing.assert_allclose(found.distance[order], distance[i, j], rtol=1e-12)
    np.testing.assert_allclose(found.separation[:, order], apart[:, i, j], rtol=1e-9, atol=1e-15)


# --- what it says ---------------------------------------------------------------------------------------------


def test_the_environment_has_versions_devices_and_memory() -> None:
    lines = machine.environment()
    names = [name for name, _ in lines]
    for name in ("packing_jax", "python", "jax", "jaxlib", "optax", "numpy", "xarray", "zarr", "device", "free memory"):
        assert name in names
    values = dict(lines)
    assert values["jax"] == jax.__version__
    assert values["known wrong results"] == "none in this release"
    assert re.match(r"\d+ x ", values["device"])
    assert re.fullmatch(r"[\d.]+ GiB|unknown on this system", values["free memory"])
    assert values["float64"].startswith("off")
    with jax.enable_x64(True):
        assert dict(machine.environment())["float64"].startswith("on")


def test_a_package_that_is_not_there_is_said_to_be_missing() -> None:
    assert versions._version("no-such-package-as-this") == "not installed"


def test_releases_with_wrong_results_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_version", lambda name: "0.10.2" if name == "jaxlib" else "0.11.1")
    told = dict(machine.environment())["known wrong results"]
    assert "0.10.2, issue 39103" in told
    assert "0.11.1, issue 40633" in told


def test_known_releases_are_those_excluded_from_installation() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package in ("jax", "jaxlib"):
        (wanted,) = [line for line in project["dependencies"] if re.match(rf"{package}\b(?!-)", line)]
        assert set(re.findall(r"!=([\d.]+)", wanted)) == set(machine.KNOWN_WRONG)


def test_a_platform_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "devices", _no_kernel)
    assert dict(machine.environment())["device"] == "none: INTERNAL: no kernel image is available."


def test_memory_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        platform, device_kind = "gpu", "NVIDIA H200"

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 3 * 2**29}

    class Silent(Device):
        def memory_stats(self) -> dict[str, int]:
            raise RuntimeError("UNIMPLEMENTED")

    monkeypatch.setattr(jax, "devices", lambda: [Device(), Device(), Silent()])
    assert machine._devices() == ["2 x gpu (NVIDIA H200), 1.5 GiB for jax", "1 x gpu (NVIDIA H200)"]


def test_the_report_fits_a_terminal() -> None:
    environment = [("jax", "0.10.2"), ("known wrong results", machine.KNOWN_WRONG["0.10.2"]), ("device", "x" * 200)]
    good = Check("row sums", True, "Gradients are right, " * 9 + "all of them.", 1.23)
    bad = Check("random words", False, "It stopped with RuntimeError: " + "no/such/file/" * 20 + ".", 4.56)
    for checks in ([], [good], [good, bad]):
        text = doctor.format_report(environment, checks)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert all(check.name in text for check in checks)
    assert "ok      row sums (1.2 s)" in text
    assert "FAILED  random words (4.6 s)" in text
    assert "1 of 2 checks failed" in text
    assert doctor.format_report(environment, [good]).endswith("All 1 checks passed.")
