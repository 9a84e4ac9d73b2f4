r"""Energy minimisation to force balance, with neighbour rows that never lose a contact.

Any optax optimizer moves the positions, in mean diameters, until the largest net force on a particle is below 1e-12.
The default is :func:`fire`, as is usual for jamming; ``optax.lbfgs()`` takes about half the steps and the same time.
Forces are dimensionless, an energy over a length in the same unit: two harmonic spheres of the mean diameter press on
each other with a0 (in mean diameters) times their relative overlap.

Rows of neighbours are built on the host with a skin, and stay complete until a particle has moved by half of it. Before
a step that goes farther they are rebuilt, so that no contact is missed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from packing_jax.errors import PackingError, calling, is_real, is_whole, real_numbers, shown
from packing_jax.landscape.curvature import largest_eigenvalues
from packing_jax.observables.periodic import wrapped
from packing_jax.spheres.energy import total_energy
from packing_jax.spheres.geometry import minimum_image, wrap
from packing_jax.spheres.potential import Overlap
from packing_jax.spheres.system import System, check_system

#: Largest net force on a particle at a minimum, dimensionless.
FORCE_BALANCE = 1e-12

#: Rows hold pairs up to sigma_ij, or the energy's reach, plus this many mean diameters.
SKIN = 0.3

_LANCZOS = 60  # iterations, which find a direction in which the energy falls steeply


# --- FIRE and L-BFGS as optax transformations -----------------------------------------------------------------


class FireState(NamedTuple):
    """FIRE's optimizer state."""

    velocity: Any  #: like the parameters
    time_step: Array  #: ()
    mixing: Array  #: (), the weight of the force's direction in the velocity
    downhill: Array  #: () int32, steps since the power was last negative


def fire(time_step: float = 0.1, largest_time_step: float = 0.5) -> optax.GradientTransformation:
    """Fast inertial relaxation engine (FIRE 2.0): molecular dynamics that stops whenever it climbs.

    v <- v - dt g, v <- (1 - c) v - c |v| g/|g|, x <- x + dt v, with unit mass and the gradient g. While the power
    P = -g.v is positive the time step dt grows and the mixing c falls; otherwise half of the last move is undone, and
    v = 0.

    Args:
        time_step: the first dt.
        largest_time_step: the longest dt; it must be below 2/sqrt(largest curvature). The default is for packings in
            mean diameters at a0 = 1/2, where 0.6 converges and 0.8 does not.

    Raises:
        PackingError: time steps that are not positive or in the wrong order.

    Source: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006); Guenole et al., Comput. Mater. Sci. 175, 109584 (2020).
    """
    if not (is_real(time_step) and is_real(largest_time_step) and 0 < time_step <= largest_time_step < np.inf):
        raise PackingError(
            f"FIRE's time step is {shown(time_step)} and may grow to {shown(largest_time_step)}; "
            "both must be positive and the second the larger"
        )
    delay, grow, shrink, start, decay = 20, 1.1, 0.5, 0.25, 0.99  # the published constants
    smallest = 0.02 * time_step

    def init(params: Any) -> FireState:
        real = optax.tree.norm(params).dtype
        return FireState(
            velocity=optax.tree.zeros_like(params),
            time_step=jnp.asarray(time_step, real),
            mixing=jnp.asarray(start, real),
            downhill=jnp.asarray(0, jnp.int32),
        )

    def update(grads: Any, state: FireState, _: Any = None) -> tuple[Any, FireState]:
        down = optax.tree.vdot(grads, state.velocity) < 0
        downhill = jnp.where(down, state.downhill + 1, 0)
        late = downhill > delay
        dt = jnp.where(late, jnp.minimum(state.time_step * grow, largest_time_step), state.time_step)
        dt = jnp.where(down, dt, jnp.maximum(state.time_step * shrink, smallest))
        mixing = jnp.where(down, jnp.where(late, state.mixing * decay, state.mixing), start)

        undone = jax.tree.map(lambda v: jnp.where(down, 0.0, -0.5 * dt) * v, state.velocity)
        velocity = jax.tree.map(lambda v, g: jnp.where(down, v, 0.0) - dt * g, state.velocity, grads)
        force = optax.tree.norm(grads)
        turn = mixing * optax.tree.norm(velocity) / jnp.where(force > 0, force, 1.0)
        velocity = jax.tree.map(lambda v, g: (1 - mixing) * v - turn * g, velocity, grads)
        updates = jax.tree.map(lambda u, v: u + dt * v, undone, velocity)
        return updates, FireState(velocity, dt, mixing, downhill)

    return optax.GradientTransformation(init, update)


FIRE = fire()  #: one object, so that compiled minimisations are reused


# --- neighbour rows -------------------------------------------------------------------------------------------


def neighbour_rows(system: System, positions: np.ndarray | Array, skin: float = SKIN) -> Int[Array, "n k"]:
    """Rows (N, K) of every pair closer than the energy's reach (contact) + skin, a particle's own index as padding.

    Complete while no particle has moved by more than half the skin (in mean diameters). Built on the host by a periodic
    k-d tree.
    """
    n, box = system.particles, float(system.box)
    x = wrapped(np.asarray(positions, np.float64) / box, 1.0)
    sigma = system.energy.reach * np.broadcast_to(np.asarray(system.diameters, np.float64), (n,)) / box
    margin = skin * float(system.unit) / box * (1.0 + 1e-9)
    pairs = cKDTree(x, boxsize=1.0).query_pairs(float(sigma.max()) + margin, output_type="ndarray")
    delta = minimum_image(x[pairs[:, 0]] - x[pairs[:, 1]], 1.0)
    reach = 0.5 * (sigma[pairs[:, 0]] + sigma[pairs[:, 1]]) + margin
    return rows_of(pairs[np.sum(delta * delta, axis=1) < reach * reach], n)


def rows_of(pairs: np.ndarray, particles: int) -> Int[Array, "n k"]:
    """Rows (N, K) of pairs (C, 2), each pair in the rows of both, a particle's own index as padding.

    K is a multiple of 8, so that compiled programs are reused.
    """
    me, other = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((other, me))
    me, other = me[order], other[order]
    count = np.bincount(me, minlength=particles)
    place = np.arange(me.size) - np.repeat(np.cumsum(count) - count, count)
    rows = np.tile(np.arange(particles, dtype=np.int32)[:, None], (1, max(8, -(-int(count.max()) // 8) * 8)))
    rows[me, place] = other
    return jnp.asarray(rows)


def energy_function(system: System, rows: Int[Array, "n k"]) -> Callable[[Array], Array]:
    """The energy as a function of positions (N, dim), both in mean diameters, valid while ``rows`` are complete."""
    return lambda y: total_energy(system, y * system.unit, rows) / system.unit


# --- minimisation ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended. A minimum only if ``converged``."""

    system: System
    positions: Float[Array, "n dim"]  #: in [0, box), float64
    rows: Int[Array, "n k"]  #: neighbours, among them every pair in contact, a particle's own index as padding
    energy: float  #: total energy in the unit of the box side
    force: float  #: largest net force on a particle, dimensionless
    steps: int  #: optimizer steps taken
    tolerance: float  #: largest net force asked for

    @property
    def converged(self) -> bool:
        """Whether the forces balance to the tolerance asked for."""
        return self.force <= self.tolerance

    def require_converged(self) -> None:
        """Refuse a minimisation that has not converged.

        Raises:
            PackingError: the forces do not balance.
        """
        if not self.converged:
            raise PackingError(
                f"this is not a minimum: the largest net force is {self.force:.3g} after {self.steps} steps, and "
                f"{self.tolerance:.3g} was asked for; minimise with more steps"
            )


def check_differentiable_force(system: System) -> None:
    """Refuse the linear energy, whose force jumps at contact; a traced exponent is not checked.

    Raises:
        PackingError: an overlap energy with an exponent of 1 or less.
    """
    energy = system.energy
    if isinstance(energy, Overlap) and not isinstance(energy.exponent, jax.core.Tracer):
        exponent = float(np.max(np.asarray(energy.exponent)))
        if exponent <= 1.0:
            raise PackingError(
                "the linear energy (a = 1) has a force that jumps at contact and a Hessian that is a delta function "
                "there: it has no balanced minima and no curvature; use a = 2 (HARMONIC) or more"
            )


@partial(jax.jit, static_argnames=("optimizer", "limit"))
def _descend(
    optimizer: optax.GradientTransformation,
    limit: int,
    system: System,
    rows: Array,
    y: Array,
    state: Any,
    step: Array,
    tolerance: Array,
    floor: Array,
) -> tuple[Array, Any, Array, Array, Array, Array]:
    """Steps from ``y`` (mean diameters) until forces balance, the limit is reached, or ``rows`` may be incomplete."""
    update = optax.with_extra_args_support(optimizer).update

    energy = energy_function(system, rows)

    def largest(vectors: Array) -> Array:
        return jnp.sqrt(jnp.max(jnp.sum(vectors * vectors, axis=1)))

    def going(carry: Any) -> Array:
        _, _, value, gradient, step, stale = carry
        residual = largest(gradient)
        return (residual > tolerance) & (value > floor) & jnp.isfinite(residual) & (step < limit) & ~stale

    def body(carry: Any) -> Any:
        y, state, value, gradient, step, _ = carry
        with calling("the optimizer", "an optax transformation whose update takes a gradient, a state and parameters"):
            move, new_state = update(gradient, state, y, value=value, grad=gradient, value_fn=energy)
        if jnp.shape(move) != y.shape or jnp.result_type(move) != y.dtype:
            raise PackingError(
                f"the optimizer's update has the shape {jnp.shape(move)} and the type {jnp.result_type(move)}; it must "
                f"have those of the positions, {y.shape} and {y.dtype}"
            )
        # moves are shorter than half the skin, so that fresh rows allow at least one
        length = largest(move)
        move = move * jnp.minimum(1.0, 0.45 * SKIN / jnp.where(length > 0, length, 1.0))
        there = y + move
        stale = largest(there - start) > 0.5 * SKIN
        new_value, new_gradient = jax.value_and_grad(energy)(there)
        new = (there, new_state, new_value, new_gradient)
        kept = jax.tree.map(lambda a, b: jnp.where(stale, a, b), (y, state, value, gradient), new)
        return *kept, step + jnp.where(stale, 0, 1), stale

    start = y
    value, gradient = jax.value_and_grad(energy)(y)
    end = jax.lax.while_loop(going, body, (y, state, value, gradient, step, jnp.asarray(False)))
    y, state, value, gradient, step, stale = end
    return y, state, value, largest(gradient), step, stale


def minimise(
    system: System,
    positions: Float[Array, "n dim"] | Float[np.ndarray, "n dim"],
    optimizer: optax.GradientTransformation = FIRE,
    *,
    force: float = FORCE_BALANCE,
    steps: int = 100_000,
    floor: float = 0.0,
) -> Minimum:
    """Move the positions downhill until max_i |grad_i E| <= ``force``.

    Args:
        system: a float64 system with an energy whose force is continuous (a > 1).
        positions: (N, dim) in the unit of the box side.
        optimizer: any optax optimizer; positions are in mean diameters, energies too. ``optax.lbfgs()`` is the usual
            alternative to FIRE.
        force: largest net force on a particle, dimensionless.
        steps: the most steps; the result says whether the forces balance.
        floor: stop early once the energy per particle, in mean diameters, is no higher than this.

    Returns:
        Positions, rows, energy and remaining force. Without a single overlap the energy and every force are zero.

    Raises:
        PackingError: a system that is not float64 or not single, a linear energy, positions of the wrong shape or not
            finite, a force or number of steps that is not positive; a start whose forces balance at no minimum, such
            as particles at one point.
    """
    _check(system, positions, optimizer, force, steps, floor)
    unit = system.unit
    y = jnp.asarray(positions, dtype=np.float64) / unit
    with calling("the optimizer", "an optax transformation whose init takes parameters"):
        state = optimizer.init(y)
    step, tolerance = jnp.asarray(0, jnp.int32), jnp.asarray(force, np.float64)
    lowest = jnp.asarray(floor * system.particles, np.float64)
    while True:
        rows = neighbour_rows(system, y * unit)
        y, state, value, residual, step, stale = _descend(
            optimizer, int(steps), system, rows, y, state, step, tolerance, lowest
        )
        if not bool(stale):
            break
    if residual <= tolerance and value > lowest:
        _check_bottom(system, y, rows, int(step))
    return Minimum(
        system=system,
        positions=wrap(y * unit, system.box),
        rows=rows,
        energy=float(value * unit),
        force=float(residual),
        steps=int(step),
        tolerance=float(force),
    )


def _check_bottom(system: System, y: Array, rows: Array, steps: int) -> None:
    """Refuse a start that balances only by symmetry: particles at one point, a maximum or a saddle."""
    delta = minimum_image((y[:, None] - y[rows]) * system.unit, system.box)
    at_one_point = jnp.all(delta == 0, axis=-1) & (rows != jnp.arange(len(y), dtype=rows.dtype)[:, None])
    if bool(jnp.any(at_one_point)):
        first = int(jnp.argmax(jnp.any(at_one_point, axis=1)))
        raise PackingError(
            f"particle {first} and another one are at the same point, where the energy has a maximum and no direction "
            "in which they could part: move them apart by a little"
        )
    if steps:
        return
    energy, most = energy_function(system, rows), min(_LANCZOS, y.size)
    curvatures = -largest_eigenvalues(lambda x: -energy(x), y, jax.random.key(0), most, most).values
    if bool(jnp.nanmin(curvatures) < -1e-6 * jnp.nanmax(jnp.abs(curvatures))):
        raise PackingError(
            "the forces balance at the start of the minimisation, but the energy falls along some direction "
            "(a maximum or a saddle): move the particles a little"
        )


def _check(system: System, positions: Any, optimizer: Any, force: float, steps: int, floor: float) -> None:
    check_system(system)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise PackingError(f"the optimizer is {shown(optimizer)}; it must be an optax one, such as optax.lbfgs()")
    if system.box.ndim:
        raise PackingError("this is a stack of systems; minimise them one at a time")
    if system.box.dtype != np.float64:
        raise PackingError(
            "force balance needs float64; create the system with dtype=np.float64 and "
            "jax.config.update('jax_enable_x64', True)"
        )
    check_differentiable_force(system)
    shape = (system.particles, system.dim)
    array = real_numbers(positions)
    if array is None:
        raise PackingError(f"the positions are {shown(positions)}; they must be an array of real numbers")
    if array.shape != shape or not bool(np.all(np.isfinite(array))):
        raise PackingError(f"positions of shape {array.shape}; they must be {shape} and finite")
    if not (is_real(force) and 0 < force < np.inf and is_whole(steps) and 1 <= steps < 2**31):
        raise PackingError(
            f"force = {shown(force)} and steps = {shown(steps)}; both must be positive, and the steps a whole number"
        )
    if not (is_real(floor) and np.isfinite(floor)):
        raise PackingError(f"the floor of the energy is {shown(floor)}; it must be a finite number")
