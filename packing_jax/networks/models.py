"""Models: functions of weights and inputs, and their initial weights.

A model is any function ``apply(weights, inputs)`` of a pytree of weights and a batch of inputs (S, ...), with a
function ``start(key)`` that draws weights. :class:`MLP` has both; :func:`from_module` makes both of an equinox module.
For a flax module they are ``module.apply`` and ``lambda key: module.init(key, inputs[:1])``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from packing_jax.errors import PackingError, is_real

#: A layer with n inputs computes c W x + b. ``standard``: c = 1 and W has variances of order 1/n; ``ntk``:
#: c = 1/sqrt n and W of order 1; ``mean-field``: as ntk, but c = 1/n in the last layer.
Parametrisation = Literal["standard", "ntk", "mean-field"]
#: The law of c W: ``uniform``: U(-1, 1)/sqrt n; ``gaussian``: N(0, 1/n); ``he``: N(0, 2/n); ``orthogonal``: orthonormal
#: rows or columns. Where c = 1/n, W is drawn as for c = 1/sqrt n.
Start = Literal["uniform", "gaussian", "he", "orthogonal"]

#: Activation functions by name.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "gelu": jax.nn.gelu,
    "linear": lambda x: x,
}


class Model(NamedTuple):
    """A function of weights and inputs, and a function that draws weights."""

    apply: Callable[[Any, Any], Any]  #: (weights, inputs (S, ...)) -> outputs (S,) or (S, k)
    start: Callable[[Array], Any]  #: key -> weights


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron: layers x -> c W x + b with an activation between them.

    Args:
        widths: of the inputs, each hidden layer and the outputs, such as (10, 30, 30, 1). With one output, outputs are
            (S,), otherwise (S, k).
        activation: one of :data:`ACTIVATIONS`, or a function.
        biases: whether layers have biases, which start at 0.
        parametrisation: the factor c, see :data:`Parametrisation`.
        drawn: how weights are drawn, see :data:`Start`.
        scale: a further factor on the initial weights.

    Raises:
        PackingError: an argument out of range.
    """

    widths: tuple[int, ...]
    activation: str | Callable[[Array], Array] = "relu"
    biases: bool = False
    parametrisation: Parametrisation = "standard"
    drawn: Start = "uniform"
    scale: float = 1.0

    def __post_init__(self) -> None:
        widths = self.widths
        if not (isinstance(widths, tuple) and len(widths) > 1 and all(type(n) is int and n > 0 for n in widths)):
            raise PackingError(
                f"the widths are {widths!r}; they must be whole numbers from 1 on, those of the inputs, the hidden "
                "layers and the outputs, such as (10, 30, 1)"
            )
        if isinstance(self.activation, str) and self.activation not in ACTIVATIONS:
            raise PackingError(
                f"the activation is {self.activation!r}; it must be one of {', '.join(ACTIVATIONS)}, or a function"
            )
        for name, value, known in (
            ("parametrisation", self.parametrisation, get_args(Parametrisation)),
            ("start", self.drawn, get_args(Start)),
        ):
            if value not in known:
                raise PackingError(f"the {name} is {value!r}; it must be one of {', '.join(known)}")
        if not (is_real(self.scale) and 0 <= self.scale < np.inf):
            raise PackingError(f"the scale of the weights is {self.scale!r}; it must be a number from 0 on")

    def _factor(self, layer: int) -> float:
        n = self.widths[layer]
        if self.parametrisation == "standard":
            return 1.0
        return 1 / n if self.parametrisation == "mean-field" and layer == len(self.widths) - 2 else 1 / sqrt(n)

    def start(self, key: Array) -> tuple[dict[str, Array], ...]:
        """Initial weights: of each layer ``w`` (inputs, outputs) and, if there are biases, ``b`` (outputs,)."""
        layers = []
        for number, shape in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            layer = {"w": _drawn(jax.random.fold_in(key, number), shape, self.drawn, self.scale)}
            if self.parametrisation != "standard":
                layer["w"] = layer["w"] * sqrt(shape[0])
            if self.biases:
                layer["b"] = jnp.zeros(shape[1])
            layers.append(layer)
        return tuple(layers)

    def apply(self, weights: tuple[dict[str, Array], ...], inputs: Array) -> Array:
        """Outputs (S,) or (S, k) for inputs (S, n)."""
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        x = inputs
        for number, layer in enumerate(weights):
            x = x @ layer["w"]
            if (factor := self._factor(number)) != 1.0:
                x = x * factor
            if "b" in layer:
                x = x + layer["b"][None]
            if number + 1 < len(weights):
                x = activation(x)
        return x[:, 0] if self.widths[-1] == 1 else x


def _drawn(key: Array, shape: tuple[int, int], how: Start, scale: float) -> Array:
    n = shape[0]
    if how == "uniform":
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * (scale / sqrt(n))
    if how == "orthogonal":
        return jax.nn.initializers.orthogonal(scale)(key, shape)
    return jax.random.normal(key, shape) * (scale * sqrt((2 if how == "he" else 1) / n))


def from_module(make: Callable[[Array], Any]) -> Model:
    """A model of a pytree module, such as one of equinox: its arrays of floats are the weights.

    Args:
        make: a function of a key that makes the module. The module is called with one sample.

    Raises:
        PackingError: the module has no arrays of floats, or also other arrays, such as counters or batch statistics.
    """
    module = jax.eval_shape(lambda key: _arrays(make(key)), jax.random.key(0))
    if not module or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in module):
        raise PackingError(
            "the module must hold arrays of floats and no others: state, such as batch statistics or counters, has no "
            "place among weights"
        )
    rest = make(jax.random.key(0))  # for everything that is not a weight: functions, sizes
    leaves, structure = jax.tree.flatten(rest)

    def apply(weights: tuple[Array, ...], inputs: Any) -> Any:
        given = iter(weights)
        filled = [next(given) if isinstance(leaf, Array | np.ndarray) else leaf for leaf in leaves]
        return jax.vmap(jax.tree.unflatten(structure, filled))(inputs)

    return Model(apply, lambda key: _arrays(make(key)))


def _arrays(module: Any) -> tuple[Array, ...]:
    return tuple(jnp.asarray(leaf) for leaf in jax.tree.leaves(module) if isinstance(leaf, Array | np.ndarray))
