"""A user's objects: imported only when named, known again by source and values."""

import importlib
import json
import subprocess
import sys
import textwrap
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from packing_jax import PackingError, bro
from packing_jax.sweeps.fingerprint import Described, described, name_of
from packing_jax.sweeps.own import check_same, imported

MODULE = """
    from dataclasses import dataclass
    from typing import NamedTuple
    import jax
    import jax.numpy as jnp
    from {name}_help import half

    @dataclass(frozen=True)
    class Slow:
        kick: float = 0.1
        def step(self, x):
            return half(x) * self.kick

    class Pair(NamedTuple):
        a: float = 1.0
        def step(self, x):
            return x

    def make(strength):
        def rule(x):
            return strength * x
        return rule

    def within(strength):
        class Inner:
            def step(self, x):
                return strength * x
        return Inner()

    def plain(x, scale=2.0):
        return scale * jnp.sin(x)

    one, other = (lambda x: x + 1), (lambda x: x + 2)
    slow = Slow()
    jitted = jax.jit(plain)
    """


@pytest.fixture
def user(tmp_path, monkeypatch):
    """Writes modules of a user's, and imports them as a new session would; their names are of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"own_{abs(hash(str(tmp_path))):x}"
    made = set()

    def write(text=MODULE, helper="def half(x):\n    return x / 2\n"):
        for stem, body in ((name, text), (f"{name}_help", helper)):
            (tmp_path / f"{stem}.py").write_text(textwrap.dedent(body.replace("{name}", name)))
            made.add(stem)
            sys.modules.pop(stem, None)
        return name

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    for stem in made:
        sys.modules.pop(stem, None)


def _of(word):
    return described(imported(word, "--rule"))


def _module(name):
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _stored(was):
    return Described.read(json.loads(json.dumps(was.stored())))


def _differ(was, now, words, trust=False):
    with pytest.raises(PackingError, match=words):
        check_same("rule", _stored(was), now, trust)


class TestImported:
    def test_an_object_of_the_present_directory(self, user):
        name = user()
        assert imported(f"{name}:slow", "--rule").kick == 0.1
        assert imported(f"{name}:Slow.step", "--rule").__name__ == "step"

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            ("slow", "given as module:object"),
            ("a:", "given as module:object"),
            ("os/path:join", "given as module:object"),
            ("there_is_none:slow", "there is no module there_is_none in "),
            ("NAME:quick", "there is no quick in own_"),
            ("NAME:slow.quick", "there is no quick in "),
        ],
    )
    def test_what_is_not_there(self, user, word, words):
        name = user()
        with pytest.raises(PackingError, match=words) as caught:
            imported(word.replace("NAME", name), "--rule")
        assert str(caught.value).startswith("--rule ")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("1 / 0", r"ZeroDivisionError: division by zero \(.*, line 1\)$"),
            ("def f(:", "does not import: SyntaxError"),
            ("import sys\nsys.exit(3)", "does not import: SystemExit: 3"),
            ("import there_is_none", "does not import: ModuleNotFoundError: No module named 'there_is_none'"),
        ],
    )
    def test_a_module_that_does_not_import(self, user, text, words):
        name = user(text)
        with pytest.raises(PackingError, match=words) as caught:
            imported(f"{name}:slow", "--rule")
        assert "\n" not in str(caught.value)


class TestKnownAgain:
    @pytest.mark.parametrize("path", ["slow", "Slow", "plain", "one", "jitted", "make", "Pair", "Pair.step"])
    def test_the_same_in_another_session(self, user, path):
        word = f"{user()}:{path}"
        was = _of(word)
        user()  # imported anew
        assert was == _of(word)
        assert was.source
        assert check_same("rule", _stored(was), _of(word), trust=False) is None

    @pytest.mark.parametrize("path", ["slow", "Slow", "make", "one", "jitted"])
    def test_another_source_is_refused(self, user, path):
        word = f"{user()}:{path}"
        was = _of(word)
        name = user(MODULE + "\n    more = 1\n")
        _differ(was, _of(word), rf"the rule {name}:\S+ is not the one .*: the source of module {name} differs")

    def test_a_module_that_it_uses_counts_and_one_that_it_does_not_use_does_not(self, user):
        name = user()
        slow, pair = _of(f"{name}:slow"), _of(f"{name}:Pair")
        user(helper="def half(x):\n    return x / 3\n")
        _differ(slow, _of(f"{name}:slow"), f"the source of module {name}_help differs")
        assert check_same("rule", _stored(pair), _of(f"{name}:Pair"), trust=False) is None

    def test_the_words_on_the_command_line_do_not_matter(self, user):
        name = user()
        module = _module(name)
        assert check_same("rule", _stored(_of(f"{name}:slow")), described(module.Slow(0.1)), trust=False) is None

    def test_values(self, user):
        module = _module(user())
        pairs = [
            (module.Slow(0.1), module.Slow(0.2)),
            (module.make(0.1), module.make(0.2)),
            (module.within(0.1), module.within(0.2)),
            (module.Pair(1.0), module.Pair(2.0)),
            (module.one, module.other),
            (module.Slow(0.1).step, module.Slow(0.2).step),
            (partial(module.plain, scale=0.1), partial(module.plain, scale=0.2)),
            (jax.tree_util.Partial(module.plain, 0.1), jax.tree_util.Partial(module.plain, 0.2)),
            (module.make(np.arange(3)), module.make(np.arange(3.0))),
            (module.make(jnp.zeros((2, 3))), module.make(jnp.zeros((3, 2)))),
            (module.make(jax.random.key(0)), module.make(jax.random.key(1))),
            (module.make({"a": 1, "b": 2}), module.make({"a": 1, "b": 3})),
            (module.make({1, 2}), module.make({1, 3})),
            (module.make(1), module.make(True)),
            (module.make(np.random.default_rng(0)), module.make(np.random.default_rng(1))),
            (jax.jit(module.make(0.1)), jax.jit(module.make(0.2))),
        ]
        for was, now in pairs:
            assert described(was).sources == described(now).sources
            assert described(was) == described(was)
            _differ(described(was), described(now), "the values that it holds differ")

    def test_numbers_that_a_module_does_not_say(self, user):
        """Its variables may come from the command line, and are not in its source."""
        name = user("import numpy as np\nK, P = 1.0, {'a': np.ones(2)}\ndef rule(x):\n    return K * x * P['a']\n")
        module = _module(name)
        was = described(module.rule)
        assert was == described(module.rule)
        for variable, value in (("K", 2.0), ("P", {"a": np.zeros(2)}), ("P", None)):
            before = getattr(module, variable)
            setattr(module, variable, value)
            _differ(was, described(module.rule), "the values that it holds differ")
            setattr(module, variable, before)
        module.other = 3.0  # which it does not read
        assert was == described(module.rule)

    def test_values_that_are_equal(self, user):
        module = _module(user())
        for make in (
            lambda: module.make({"a": 1, "b": (np.arange(3), None)}),
            lambda: partial(module.plain, scale=jnp.float32(0.3)),
            lambda: module.within([1.5, {"x", "y"}]),
        ):
            assert described(make()) == described(make())
        assert described(module.make({"a": 1, "b": 2})) == described(module.make({"b": 2, "a": 1}))

    def test_a_changed_default_is_another_value(self, user):
        module = _module(user())
        was = described(module.plain)
        module.plain.__defaults__ = (3.0,)
        _differ(was, described(module.plain), "the values that it holds differ")

    def test_a_function_that_holds_itself(self, user):
        module = _module(user("def make(n):\n    def f(x):\n        return f(x - n)\n    return f\n"))
        assert described(module.make(1)) == described(module.make(1)) != described(module.make(2))

    def test_what_has_no_content(self, user):
        module = _module(user())
        with pytest.raises(PackingError, match=r"make.*rule cannot be recorded in a store: it holds a lock"):
            described(module.make(threading.Lock()))

        @jax.jit
        def traced(x):
            with pytest.raises(PackingError, match="traced array"):
                described(module.make(x))
            return x

        traced(1.0)


class TestOptimizers:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (partial(optax.sgd, 0.1), partial(optax.sgd, 0.2)),
            (partial(optax.sgd, 0.1), partial(optax.sgd, 0.1, momentum=0.9)),
            (partial(optax.adam, 0.1), partial(optax.adam, 0.1, b1=0.8)),
            (partial(optax.sgd, 0.1), partial(optax.adam, 0.1)),
            (
                lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100)),
                lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 200)),
            ),
            (
                lambda: optax.chain(optax.clip(1.0), optax.sgd(0.1)),
                lambda: optax.chain(optax.clip(2.0), optax.sgd(0.1)),
            ),
            (
                lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
                lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=0.2),
            ),
        ],
    )
    def test_every_hyperparameter_counts(self, one, other):
        assert described(one()) == described(one())
        assert described(one()).sources == {}
        _differ(described(one()), described(other()), "the values that it holds differ")

    def test_a_schedule_of_the_users_counts_with_its_source(self, user):
        module = _module(user())
        assert set(described(optax.sgd(module.make(0.1))).sources) == {module.__name__}


class TestThePackagesOwn:
    def test_by_name_and_fields(self):
        was = described(bro(0.1))
        assert was.sources == {}
        assert was.name.startswith("packing_jax.spheres.rules.bro:")
        assert described(bro(0.1)) == was
        _differ(was, described(bro(0.2)), "the values that it holds differ")
        _differ(was, described(bro(0.1, "particle")), "the values that it holds differ")

    def test_a_function_of_jax_is_its_name(self):
        assert described(jnp.sin) != described(jnp.cos)
        assert described(jnp.add) != described(jnp.subtract)
        assert described(jax.nn.relu).sources == {}


class TestWithoutSource:
    def _typed(self, factor):
        scope = {"__name__": "__main__"}
        exec(f"def rule(x):\n    return {factor} * x\n", scope)
        return scope["rule"]

    def test_goes_on_with_trust_only(self):
        was, now = described(self._typed(2)), described(self._typed(2))
        assert not was.source
        assert was.stored()["source"] is False
        _differ(was, now, "has no source that could be compared.*--trust-rule, in Python trust_rule=True")
        assert "was trusted" in check_same("rule", _stored(was), now, trust=True)

    def test_trust_does_not_cover_values(self, user):
        module = _module(user())
        was, now = (described(partial(self._typed(2), factor)) for factor in (1, 2))
        _differ(was, now, "the values that it holds differ", trust=True)
        was = described(module.make(self._typed(2)))
        user(MODULE + "\n    more = 1\n")
        now = described(_module(module.__name__).make(self._typed(2)))
        _differ(was, now, f"source of module {module.__name__} differs", trust=True)

    def test_a_session_and_a_script(self, tmp_path):
        text = textwrap.dedent(
            """
            from packing_jax.sweeps.own import described
            class Slow:
                def step(self, x):
                    return x
            if __name__ == "__main__":
                print(described(Slow()).stored())
            """
        )
        typed = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
        assert "'__main__': None" in typed.stdout
        assert "'source': False" in typed.stdout
        (tmp_path / "script.py").write_text(text)
        run = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True, cwd=tmp_path)
        again = subprocess.run(
            [sys.executable, "-c", "import script; print(script.described(script.Slow()).stored())"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert "'script:Slow'" in run.stdout
        assert run.stdout == again.stdout


@pytest.mark.parametrize(
    "value",
    [None, "x", {}, {"name": "a:b", "sources": 3, "values": "x"}, {"name": "a:b", "sources": {"a": 1}, "values": "x"}],
)
def test_a_store_that_describes_nothing(value):
    with pytest.raises(PackingError, match="that is not a description"):
        Described.read(value)


def test_names():
    assert name_of(optax.sgd) == "optax._src.alias:sgd"
    assert name_of(partial(optax.sgd, 0.1)) == "optax._src.alias:sgd"
    assert name_of(bro(0.1)).endswith(":BRO")
