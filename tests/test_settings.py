"""Settings of jax and of the terminal: what changes bits is pinned or known to the store; nothing is a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from under_settings import SWEEP, Sweep

import packing_jax
from packing_jax import PackingError
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.schema import description

HERE = Path(__file__).parent


def started(*words: str, **settings: str) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(Path(packing_jax.__file__).parents[1])} | settings
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=HERE
    )


def said(process: "subprocess.Popen[bytes]") -> Any:
    """What :mod:`under_settings` found."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("settings") / "sweep"
    run_sweep(SWEEP, directory)
    return directory


def test_streams_of_jax_and_a_search_for_nan_change_no_bit() -> None:
    plain = started("under_settings.py", "digest")
    others = started("under_settings.py", "digest", JAX_THREEFRY_PARTITIONABLE="0", JAX_DEFAULT_PRNG_IMPL="unsafe_rbg")
    strict = started("under_settings.py", "digest", JAX_DEBUG_NANS="1")
    assert said(plain) == said(others) == said(strict)


@pytest.mark.validation
def test_sweep_report_rollout_and_minimum_make_no_nan(tmp_path: Path) -> None:
    said(started("under_settings.py", "everything", str(tmp_path / "sweep"), JAX_DEBUG_NANS="1"))


def test_a_float64_system_after_64_bit_types_were_switched_off() -> None:
    assert "float64 needs jax's 64-bit types" in said(started("under_settings.py", "switched off"))


def test_a_sweep_goes_on_under_the_settings_that_it_was_begun_with(store: Path) -> None:
    x64 = started("under_settings.py", "resume", str(store), JAX_ENABLE_X64="1")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_enable_fast_math=true"
    fast = started("under_settings.py", "resume", str(store), XLA_FLAGS=flags)
    assert "jax_enable_x64 was 'at its default' and is True" in said(x64)
    assert "XLA_FLAGS was 'at its default' and is '--xla_cpu_enable_fast_math=true'" in said(fast)
    assert run_sweep(SWEEP, store, resume=True).done == 2
    assert "XLA_FLAGS" not in description(store)["jax_settings"]  # two devices and one piece of code change nothing


def test_a_platform_that_is_not_there() -> None:
    created = started("under_settings.py", "create", JAX_PLATFORMS="banana")
    ran = started("-m", "packing_jax.commands.main", "run", "--phi", "0.3", "--out", "never", JAX_PLATFORMS="banana")
    assert "JAX_PLATFORMS is 'banana', cpu would do" in said(created)
    _, err = ran.communicate(timeout=100)
    assert ran.returncode == 2
    assert err.startswith(b"packing-jax: jax has no device to compute on")
    assert len(err.splitlines()) == 1


def test_letters_that_the_terminal_lacks() -> None:
    words = ["-m", "packing_jax.commands.main"]
    poor = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    shown = started(*words, "--help", **poor)
    status = started(*words, "status", "caf\u00e9-\udcff", **poor)
    long = started(*words, "run", "--phi", "0.3", "--particles", "9" * 5000, **poor)
    for process, code in ((shown, 0), (status, 2), (long, 2)):
        _, err = process.communicate(timeout=100)
        assert process.returncode == code, err
        assert b"Traceback" not in err


def test_a_specification_whose_build_raises(tmp_path: Path) -> None:
    class Broken(Sweep):
        def build(self, names: Any) -> Any:
            raise KeyError(str(names))

    with pytest.raises(PackingError, match="build of the specification Broken fails: KeyError") as caught:
        run_sweep(Broken(**vars(SWEEP) | {"record": {}}), tmp_path / "sweep")
    assert isinstance(caught.value.__cause__, KeyError)
    assert not (tmp_path / "sweep").exists()
