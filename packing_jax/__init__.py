"""Stochastic gradient descent as statistical physics: packings, absorbing states, phase diagrams, in JAX."""

from packing_jax.versions import __version__ as __version__

TYPE_CHECKING = False  # and not typing's, nor anything else that takes time: the command line begins here
if TYPE_CHECKING:
    from packing_jax.names import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        """What a user types, from :mod:`packing_jax.names`: who only reads a store loads no driver."""
        import importlib.util

        dunder = name.startswith("__") and name != "__all__"  # asked of every module by whoever looks through them
        if dunder or importlib.util.find_spec(f"{__name__}.{name}"):  # and a module by who is about to import it
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        names = importlib.import_module("packing_jax.names")
        known = getattr(names, "__all__", ())  # not there yet while they are loaded
        if name == "__all__":
            return known
        if name not in known:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(names, name)

    def __dir__() -> list[str]:
        return [*globals(), *__getattr__("__all__")]
