"""Strictness for the whole suite: shape, dtype, sharding and annotation mistakes fail here."""

import importlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import jax
import pytest
from jaxtyping import install_import_hook

# A program in one piece, and not in 32 to be compiled by as many cores: a quarter less to do where tests share two.
# It changes nothing about the program.
if "xla_cpu_parallel_codegen_split_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"

# Two CPU devices, so that what is sharded over devices is sharded in the tests as well. jax takes
# the number once, so the backend starts here, before a test can start it with another one.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", 2)
if len(jax.devices("cpu")) < 2:
    raise RuntimeError("the tests need two CPU devices, and XLA_FLAGS asks for fewer: unset it")

# What a test compiles, others find that run beside it or start a process; nothing is left behind in the user's cache.
# (jax before 0.12 prints lines of errors whenever it reads what it kept for a CPU.)
if jax.__version_info__ < (0, 12) and jax.default_backend() == "cpu":
    jax.config.update("jax_enable_compilation_cache", False)
elif "PYTEST_XDIST_WORKER" not in os.environ and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="packing_jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_compilation_cache_dir", _cache.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs of these tests run for less time than they take to compile, so they are hardly optimized. All others are what
# users run: they are compared bit by bit, or are timed.
UNOPTIMIZED = (
    "test_extreme_calls.py", "test_settings.py", "commands/", "documents/", "figures/", "landscape/", "sweeps/",
    "spheres/test_neighbors.py",
    "derivatives/test_derivatives.py", "derivatives/test_no_derivative.py",
    "networks/test_data",
)  # fmt: skip

# Not a `with` block: modules imported late (the command line, the figures) are checked too.
install_import_hook("packing_jax", "beartype.beartype")

# The first example of a test compiles, so no example has a deadline. In CI the examples are the
# same every time, so that a red run is about the change it tests.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="module", autouse=True)
def unoptimized(request: pytest.FixtureRequest, monkeypatch_module: pytest.MonkeyPatch) -> bool:
    """Whether the programs of a test file are hardly optimized, here and in the processes that it starts."""
    wanted = request.path.relative_to(Path(__file__).parent).as_posix().startswith(UNOPTIMIZED)
    monkeypatch_module.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", str(int(wanted)))
    if jax.config.read("jax_disable_most_optimizations") != wanted:
        jax.config.update("jax_disable_most_optimizations", wanted)
        jax.clear_caches()  # programs of the file before are not those of this one
    return wanted


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    """A `monkeypatch` for as long as a test file runs."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def usual_promotion() -> Iterator[None]:
    """Let arrays of different dtype and rank mix, for a test of code that is not ours.

    optax's Adam and some of its schedules rely on implicit promotion, and so does jax-md, already
    while it is imported.
    """
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def jax_md(usual_promotion: None) -> Iterator[ModuleType]:
    """The jax_md package, for a test that lends it our code or takes some of its own."""
    # It sums in float64 whether or not jax has that switched on. Ignored for one test at a time:
    # the same warning about our own code is an error.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64", UserWarning)
        yield importlib.import_module("jax_md")
