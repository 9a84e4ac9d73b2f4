"""What a network learns from: inputs and targets, and what is done to them before a run.

A set comes from :mod:`packing_jax.networks.random_data` (drawn from a key, no files) or from
:func:`packing_jax.networks.files.load` (images and tables). A set from files is prepared on the host, in float64, by
the functions below, each of which returns a new set; ``on_device`` then fixes the precision:

    digits = principal_components(standardised(parity(load("mnist-5k"))), 10)
    data = split(digits, samples=4000, tests=1000, seed=0).on_device(jnp.float32)

The order matters: functions applied before ``split`` see training and test samples together.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import DTypeLike

from packing_jax.errors import PackingError
from packing_jax.trees import pytree
from packing_jax.untrusted import check_memory


@pytree()
@dataclass(frozen=True)
class Data:
    """Training and, where there are any, test samples: a pytree of arrays with the sample axis first.

    One set for all replicas, or one for each with a leading replica axis, as from ``jax.vmap`` over keys.

    Args:
        inputs: (samples, ...), usually (samples, features).
        targets: (samples,) or (samples, outputs): numbers, labels of +1 and -1, or classes 0, 1, ... as integers.
        test_inputs: (tests, ...) like ``inputs``, or None.
        test_targets: (tests, ...) like ``targets``, or None.

    Raises:
        PackingError: no samples, different numbers of inputs and targets, or test samples of another shape.
    """

    inputs: Array | np.ndarray
    targets: Array | np.ndarray
    test_inputs: Array | np.ndarray | None = None
    test_targets: Array | np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_pair(self.inputs, self.targets, "")
        if (self.test_inputs is None) != (self.test_targets is None):
            raise PackingError("test inputs and test targets belong together: give both or neither")
        if self.test_inputs is not None and self.test_targets is not None:
            _check_pair(self.test_inputs, self.test_targets, "test ")
            for name, train, test in (
                ("inputs", self.inputs, self.test_inputs),
                ("targets", self.targets, self.test_targets),
            ):
                if train.shape[1:] != test.shape[1:]:
                    raise PackingError(
                        f"each of the test {name} has shape {test.shape[1:]}; those for training have {train.shape[1:]}"
                    )

    def on_device(self, dtype: DTypeLike) -> "Data":
        """The same set as jax arrays: numbers in this precision, classes as int32.

        Args:
            dtype: float32 or float64.

        Raises:
            PackingError: another dtype, or float64 without jax's 64-bit types.
        """
        dtype = float_dtype(dtype)

        def convert(array: Array | np.ndarray) -> Array:
            return jnp.asarray(array, dtype=dtype if array.dtype.kind == "f" else np.int32)

        return replace(
            jax.tree.map(convert, self),
            inputs=jnp.asarray(self.inputs, dtype=dtype),
            test_inputs=None if self.test_inputs is None else jnp.asarray(self.test_inputs, dtype=dtype),
        )


def float_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype, checked: float32, or float64 if jax's 64-bit types are on."""
    chosen = np.dtype(dtype)
    if chosen not in (np.float32, np.float64):
        raise PackingError(f"the precision of data is {chosen}; it must be float32 or float64")
    if chosen == np.float64 and not jax.config.read("jax_enable_x64"):
        raise PackingError("float64 needs jax's 64-bit types; set jax.config.update('jax_enable_x64', True)")
    return chosen


def parity(data: Data) -> Data:
    """Labels of digits by parity: +1 for even, -1 for odd (float64).

    Raises:
        PackingError: targets that are not one integer per sample.
    """
    return _with_targets(data, lambda classes: 1.0 - 2.0 * (classes % 2))


def one_hot(data: Data) -> Data:
    """Targets (samples, classes), 1 in the column of a sample's class and 0 elsewhere (float64).

    The number of classes is one more than the largest class among training and test samples.

    Raises:
        PackingError: targets that are not one integer per sample, from 0 on, or more columns than memory allows.
    """
    given = [_classes(targets) for targets in (data.targets, data.test_targets) if targets is not None]
    if min(int(classes.min()) for classes in given) < 0:
        raise PackingError("a class is negative; classes are integers from 0 on")
    columns = 1 + max(int(classes.max()) for classes in given)
    check_memory(8 * columns * sum(map(len, given)))
    return _with_targets(data, lambda classes: np.arange(columns) == classes[:, None])


def standardised(data: Data) -> Data:
    """Each input less its mean, over its standard deviation, both over the training samples (float64).

    A pixel that is the same in all training samples becomes 0, also in test samples. The standard deviation has 1/P,
    not 1/(P - 1).
    """
    check_memory(24 * data.inputs.size)
    mean = np.mean(data.inputs, axis=0, dtype=np.float64)
    constant = np.max(data.inputs, axis=0) == np.min(data.inputs, axis=0)
    deviation = np.where(constant, 1.0, np.std(data.inputs, axis=0, dtype=np.float64))
    return _with_inputs(data, lambda inputs: np.where(constant, 0.0, (inputs - mean) / deviation))


def principal_components(data: Data, count: int, *, whiten: bool = False) -> Data:
    r"""The first principal components of the inputs, (samples, count), by decreasing variance (float64).

    z_k = e_k . (x - mean), with mean and covariance (1/P) sum (x - mean)(x - mean)^T of the training samples, and e_k
    the eigenvector of its k-th largest eigenvalue, its entry of largest size being positive. With ``whiten`` each z_k
    is divided by the square root of its eigenvalue, so that every component has variance 1.

    Args:
        data: inputs of any shape (samples, ...), flattened to rows.
        count: number of components.
        whiten: whether each component is scaled to variance 1.

    Raises:
        PackingError: ``count`` is not between 1 and the rank of the covariance.
    """
    rows = _rows(data.inputs)
    features = rows.shape[1]
    check_memory(8 * (2 * rows.size + 3 * features**2))
    mean = np.mean(rows, axis=0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    if not 1 <= count <= features:
        raise PackingError(
            f"{count} principal components were asked for; there must be 1 to {features}, the length of an input"
        )
    ends = (features - count, features - 1)
    variances, directions = scipy.linalg.eigh(covariance, subset_by_index=ends)
    variances, directions = variances[::-1], directions[:, ::-1]
    if variances[-1] <= features * np.finfo(np.float64).eps * np.trace(covariance):
        raise PackingError(f"the inputs vary in fewer than the {count} directions that were asked for; ask for fewer")
    directions = directions * np.sign(directions[np.argmax(np.abs(directions), axis=0), np.arange(count)])
    if whiten:
        directions = directions / np.sqrt(variances)
    return _with_inputs(data, lambda inputs: (_rows(inputs) - mean) @ directions)


def split(data: Data, samples: int, tests: int = 0, seed: int = 0) -> Data:
    """Training and test samples drawn at random from the training samples, without replacement.

    With the same seed and ``tests``, a smaller training set is the beginning of a larger one, as learning curves need.

    Args:
        data: the pool. If ``tests`` is 0, its own test samples are kept.
        samples: number of training samples.
        tests: number of test samples.
        seed: of the order, at least 0; it gives the same order on every machine and with every version of numpy.

    Raises:
        PackingError: more than the pool has, a negative seed, or ``tests`` where the pool has its own test samples.
    """
    pool = len(data.inputs)
    if samples < 1 or tests < 0 or samples + tests > pool:
        raise PackingError(
            f"{samples} samples and {tests} tests were asked for; the set has {pool} in all, and "
            "at least 1 sample is needed"
        )
    if seed < 0:
        raise PackingError(f"the seed is {seed}; it must be 0 or more")
    if tests and data.test_inputs is not None:
        raise PackingError(f"the set has {len(data.test_inputs)} tests of its own; tests=0 keeps them")
    order = np.argsort(np.random.PCG64(seed).random_raw(pool), kind="stable")  # numpy's shuffles may change
    train, test = order[tests : tests + samples], order[:tests]
    chosen = replace(data, inputs=data.inputs[train], targets=data.targets[train])
    return replace(chosen, test_inputs=data.inputs[test], test_targets=data.targets[test]) if tests else chosen


def _check_pair(inputs: Any, targets: Any, name: str) -> None:
    if not inputs.ndim or not targets.ndim or len(inputs) != len(targets) or not len(inputs):
        raise PackingError(
            f"the {name}inputs have shape {inputs.shape} and the {name}targets {targets.shape}; "
            "their first axes must have the same length, at least one sample"
        )


def _rows(inputs: Array | np.ndarray) -> np.ndarray:
    return np.reshape(np.asarray(inputs, dtype=np.float64), (len(inputs), -1))


def _classes(targets: Array | np.ndarray) -> np.ndarray:
    """The targets, checked to be one integer per sample."""
    classes = np.asarray(targets)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise PackingError(
            f"the targets are {classes.dtype} of shape {classes.shape}; classes must be one integer "
            "per sample, of shape (samples,)"
        )
    return classes.astype(np.int64)


def _with_targets(data: Data, change: Callable[[np.ndarray], np.ndarray]) -> Data:
    def changed(targets: Array | np.ndarray) -> np.ndarray:
        return np.asarray(change(_classes(targets)), dtype=np.float64)

    tests = None if data.test_targets is None else changed(data.test_targets)
    return replace(data, targets=changed(data.targets), test_targets=tests)


def _with_inputs(data: Data, change: Callable[[np.ndarray], np.ndarray]) -> Data:
    tests = None if data.test_inputs is None else change(np.asarray(data.test_inputs, dtype=np.float64))
    return replace(data, inputs=change(np.asarray(data.inputs, dtype=np.float64)), test_inputs=tests)
