"""Sweeps of a user's own rule, energy, optimizer and observables: begun, gone on with, refused, and never imported."""

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from command_line import changed

from packing_jax import PackingError, PairEnergy, bro, pair_rule
from packing_jax.commands.main import main
from packing_jax.sweeps.own import changed_modules
from packing_jax.sweeps.rerun import rerun
from packing_jax.sweeps.run import run_sweep
from packing_jax.sweeps.spheres import Sweep
from packing_jax.sweeps.status import status

# A rule, an energy and an observable as a user writes them; importing the module leaves a file behind.
MODULE = """
    from dataclasses import dataclass
    from pathlib import Path

    import jax.numpy as jnp

    from packing_jax import PairEnergy, bro

    with Path("imported").open("a") as file:
        file.write("once ")

    def twice(kick):
        return bro(2 * kick)

    def soft(r, sigma):
        return 0.5 * (1 - r / sigma) ** 2

    energy = PairEnergy(soft, 1.0)
    made = bro(0.1)

    def widest(seen):
        return jnp.max(jnp.abs(seen.displacements))

    def both(seen):
        return jnp.max(seen.displacements, axis=0)

    not_callable = 3

    unnamed = lambda kick: bro(2 * kick)
    """

OPTIONS = ["--dim=2", "--particles=32", "--steps=60", "--record-every=20", "--log=quiet"]
GRID = ["--phi=0.3,0.5", "--kick=0.1", "--replicas=1"]


def push(pair, u, kick):
    return kick * u * pair.direction


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of a user's in the present directory, under a name of this test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"own_{abs(hash(str(tmp_path))):x}"

    def write(more=""):
        Path(f"{name}.py").write_text(textwrap.dedent(MODULE) + more)
        sys.modules.pop(name, None)
        Path("imported").unlink(missing_ok=True)
        return name

    yield write
    sys.modules.pop(name, None)


def load(name):
    importlib.invalidate_caches()
    return importlib.import_module(name)


def small(**more):
    return Sweep(
        **{"dim": 2, "particles": 32, "steps": 60, "record_every": 20, "phi": (0.3, 0.5), "replicas": 1} | more
    )


def opened(directory):
    return xr.open_zarr(Path(directory) / "results.zarr", consolidated=False, decode_timedelta=False).load()


def runs(capsys, *arguments):
    code = main([*map(str, arguments)])
    return code, capsys.readouterr().err.strip()


class TestInPython:
    def test_a_rule_that_is_a_function_of_the_kick(self, own, tmp_path):
        module = load(own())
        run_sweep(small(rule=module.twice, kick=(0.05, 0.1)), tmp_path / "own")
        run_sweep(small(rule="bro", kick=(0.1, 0.2)), tmp_path / "named")
        mine, named = opened("own"), opened("named")
        assert mine.attrs["rule"] == f"{module.__name__}:twice"
        assert mine.attrs["own"]["rule"]["source"] is True
        # the same moves; the keys hold the kick, and so differ where it does
        assert mine["activity"].shape == named["activity"].shape
        run_sweep(small(rule=bro, kick=(0.1, 0.2)), tmp_path / "same")
        np.testing.assert_array_equal(opened("same")["positions"], named["positions"])

    def test_an_optimizer_is_sgd(self, tmp_path):
        given = {"kick": (0.1, 0.2), "batch_fraction": (0.5,)}
        run_sweep(small(rule=optax.sgd, **given), tmp_path / "own")
        run_sweep(small(rule="sgd", **given), tmp_path / "named")
        np.testing.assert_array_equal(opened(tmp_path / "own")["positions"], opened(tmp_path / "named")["positions"])

    def test_observables_of_any_shape_beside_the_usual_ones(self, own, tmp_path):
        module = load(own())
        run_sweep(small(rule=module.made, record={"widest": module.widest, "both": module.both}), tmp_path / "own")
        results = opened("own")
        assert {"activity", "energy", "msd", "widest", "both"} < set(results.data_vars)
        assert results["kick"].values.tolist() == [0.1]  # that of the rule
        assert results["both"].dims[-2:] == ("time", "both_0")
        assert (results["widest"].isel(time=-1) > 0).all()

    def test_an_energy(self, own, tmp_path):
        module = load(own())
        run_sweep(small(rule=optax.sgd, energy=module.energy, kick=(0.1,)), tmp_path / "own")
        run_sweep(small(rule="sgd", exponent=2.0, kick=(0.1,)), tmp_path / "named")
        mine, named = opened("own"), opened("named")
        np.testing.assert_allclose(mine["energy"].isel(time=0), 2 * named["energy"].isel(time=0), rtol=1e-5)
        assert mine.attrs["energy"] == "packing_jax.spheres.potential:PairEnergy"
        assert mine.attrs["own"]["energy"]["sources"].keys() == {module.__name__}

    def test_going_on_and_rerun(self, own, tmp_path):
        module = load(own())
        spec = {"rule": module.twice, "record": {"widest": module.widest}, "kick": (0.1,)}
        run_sweep(small(**spec), tmp_path / "own")
        outcome = run_sweep(small(**spec, phi=(0.3, 0.5, 0.6)), tmp_path / "own", resume=True)
        assert (outcome.done, outcome.stopped, outcome.notes) == (3, None, ())
        run_sweep(small(**spec, phi=(0.3, 0.5, 0.6)), tmp_path / "whole")
        for name in ("positions", "widest"):
            np.testing.assert_array_equal(opened("own")[name], opened("whole")[name])
        assert rerun(tmp_path / "own", 2, small(**spec))[0]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda _: {"rule": "bro"}, "the rule own_.*:twice"),
            (lambda _: {"record": None}, "the record widest own_.*:widest"),
            (lambda m: {"record": {"widest": m.widest, "both": m.both}}, "begun without a record both of your own"),
            (lambda _: {"rule": bro(0.1)}, "the rule packing_jax.*BRO is not the one"),
            (lambda m: {"record": {"widest": m.both}}, "the record widest own_.*:both is not the one"),
        ],
    )
    def test_other_objects_are_refused(self, own, tmp_path, change, words):
        module = load(own())
        spec = {"rule": module.twice, "record": {"widest": module.widest}, "kick": (0.1,)}
        run_sweep(small(**spec), tmp_path / "own")
        with pytest.raises(PackingError, match=words):
            run_sweep(small(**spec | change(module)), tmp_path / "own", resume=True)
        with pytest.raises(PackingError, match=r"begun with the rule own_.*and a store never imports"):
            run_sweep(None, tmp_path / "own", resume=True)

    def test_another_version_is_refused(self, own, tmp_path):
        name = own()
        run_sweep(small(rule=load(name).twice), tmp_path / "own")
        own("\nMORE = 1\n")
        with pytest.raises(PackingError, match=f"the source of module {name} differs"):
            run_sweep(small(rule=load(name).twice), tmp_path / "own", resume=True)

    def test_what_has_no_source_needs_trust_and_the_store_says_so(self, tmp_path):
        def typed():
            scope = {"__name__": "__main__", "bro": bro}
            exec("def rule(kick):\n    return bro(kick)\n", scope)
            return scope["rule"]

        run_sweep(small(rule=typed()), tmp_path / "own")
        assert opened(tmp_path / "own").attrs["own"]["rule"]["source"] is False
        with pytest.raises(PackingError, match="--trust-rule, in Python trust_rule=True"):
            run_sweep(small(rule=typed(), replicas=2), tmp_path / "own", resume=True)
        outcome = run_sweep(small(rule=typed(), replicas=2, trust_rule=True), tmp_path / "own", resume=True)
        assert outcome.done == 4
        assert any("was trusted to be the one" in note for note in outcome.notes)
        assert any("was trusted" in one for one in status(tmp_path / "own")["sessions"][-1]["trusted"])

    def test_records_of_any_type_of_numbers(self, tmp_path):
        record = {
            "many": lambda _: jnp.uint32(4_000_000_000),
            "half": lambda seen: seen.side.astype(jnp.bfloat16),
            "yes": lambda seen: seen.side > 0,
        }
        run_sweep(small(record=record, phi=(0.3,)), tmp_path / "own")
        results = opened(tmp_path / "own")
        assert (results["many"] == 4_000_000_000).all()
        side = np.sqrt(32 * np.pi / 4 / 0.3)
        np.testing.assert_allclose(results["half"], side, rtol=2**-8)
        assert results["yes"].dtype == np.int8

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"record": {"wave": lambda seen: jax.lax.complex(seen.side, seen.side)}}, "wave is complex; a store"),
            ({"record": {"none": lambda _: jnp.zeros(0)}}, "in which there is nothing to store"),
            ({"record": {"both": lambda seen: (seen.side, seen.side)}}, "both returns an object of type tuple"),
            ({"record": {"x": lambda seen: seen.positions[0], "x_0": lambda seen: seen.side}}, "x_0 is an array and"),
            ({"rule": 3}, "the rule is of type int; it must be a packing_jax rule, an optax optimizer, or a function"),
            ({"rule": "metropolis"}, "'metropolis'; it must be bro, sgd, ro, langevin or thermal, or an object of"),
            ({"rule": lambda _: 3}, "makes an object of type int; it must make a packing_jax rule"),
            ({"rule": lambda _: bro(-1.0)}, "one for each replica: (?!PackingError)"),
            ({"rule": lambda _: float("x")}, "cannot be made from a kick.*ValueError"),
            ({"rule": bro(0.1), "kick": (0.2,)}, "has the kick 0.1 and the sweep"),
            (
                {"rule": pair_rule(push, kick=0.1), "kick": (0.2,)},
                "has the kick 0.1 and the sweep",
            ),
            ({"rule": bro(np.array([0.1, 0.2]))}, "kicks of its own for several replicas"),
            ({"rule": optax.sgd(0.1)}, "has no kick: give the sweep one kick"),
            ({"rule": bro(0.1), "coupling": "particle"}, "omit them with one of your own"),
            ({"rule": bro(0.1), "batch_fraction": (0.5,)}, "a batch fraction belongs to the rule sgd"),
            ({"energy": 3}, "the energy is of type int; it must be a packing_jax.PairEnergy"),
            ({"energy": PairEnergy(lambda r, s: 1 - r / s, 1.0), "exponent": 2.0}, "either an energy or an exponent"),
            ({"record": {"positions": len}}, "cannot be called 'positions'"),
            ({"record": {"a b": len}}, "cannot be called 'a b'"),
            ({"record": {"activity": len}}, "activity is recorded anyway"),
            ({"record": {"mine": lambda _: "a word"}}, "the observable mine returns an object of type str"),
            ({"record": {"mine": 3}}, "the observable mine is of type int"),
        ],
    )
    def test_bad_objects(self, tmp_path, given, words):
        with pytest.raises(PackingError, match=words):
            run_sweep(small(**given), tmp_path / "own")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["phi", "kick", "batch_fraction"])
    def test_one_number_is_no_tuple(self, name):
        spec = small()
        object.__setattr__(spec, name, 0.3)  # past the annotation checks of the test suite
        with pytest.raises(PackingError, match=rf"{name} is 0\.3; it must be a tuple of numbers, such as \(0\.6,\)"):
            spec.checked()


class TestOnTheCommandLine:
    def test_what_has_no_name_is_called_as_its_module_calls_it(self, own, capsys):
        """A lambda, and an energy, whose class is of the package: as they are to be named again."""
        name = own()
        words = [*GRID, *OPTIONS, f"--rule={name}:unnamed", f"--energy={name}:energy", "--out=there"]
        code, said = runs(capsys, "sweep", *words, "--max-walltime=1")
        assert (code, "; to continue: packing-jax sweep --resume there with the same --rule, --energy" in said) == (
            3,
            True,
        )
        assert main(["status", "there"]) == 0
        assert "--resume there with the same --rule, --energy" in capsys.readouterr().out
        code, said = runs(capsys, "sweep", "--resume=there")
        assert code == 2
        assert f"begun with the rule {name}:unnamed, the energy {name}:energy of your own" in said
        assert ": name them again, with --rule, --energy, in Python as in its Sweep" in said

    def test_named_objects_are_imported_and_recorded(self, own, capsys):
        name = own()
        words = [
            *GRID,
            *OPTIONS,
            f"--rule={name}:twice",
            f"--record=widest={name}:widest",
            f"--record=both={name}:both",
        ]
        assert runs(capsys, "sweep", *words, "--out=there")[0] == 0
        assert {"widest", "both"} < set(opened("there").data_vars)
        code, said = runs(capsys, "sweep", "--resume=there", "--replicas=2", *words[-3:], "--log=quiet")
        assert (code, said) == (0, "there: 4 of 4 cells are done")
        assert runs(capsys, "rerun", "there", "--cell=1", *words[-3:])[0] == 0

    def test_nothing_is_imported_because_a_store_names_it(self, own, capsys):
        name = own()
        given = [f"--rule={name}:twice", f"--energy={name}:energy", f"--record=widest={name}:widest"]
        assert runs(capsys, "sweep", *changed([*GRID, *OPTIONS], "--kick=0.05"), *given, "--out=there")[0] == 0
        assert Path("imported").read_text() == "once "
        own()  # a new session, and no trace of an import
        for words in (
            ["report", "there"],
            ["status", "there"],
            ["sweep", "--resume=there"],
            ["sweep", "--resume=there", "--replicas=2"],
            ["sweep", "--resume=there", "--rule=bro"],
            ["sweep", "--resume=there", "--trust-rule"],
            ["rerun", "there", "--cell=0"],
            ["movie", "there"],
        ):
            code, said = runs(capsys, *words)
            assert code == (0 if words[0] in ("report", "status") else 2), words
            if words[0] in ("sweep", "rerun"):
                assert f"the rule {name}:twice" in said
                assert "with --rule, --energy, --record" in said
            assert name not in sys.modules
            assert not Path("imported").exists()
        code, said = runs(capsys, "sweep", "--resume=there", *given[1:])
        assert (code, "the rule" in said, "the energy" in said) == (2, True, False)  # what is still to be named

    def test_a_store_whose_description_was_forged_imports_nothing(self, own, tmp_path):
        """The rule's own field, the description of objects, or both name a module that is there."""
        name = own()
        run_sweep(small(), tmp_path / "there")
        for forged in (
            {"rule": f"{name}:twice"},
            {"own": {"rule": {"name": f"{name}:twice", "sources": {name: "0"}, "values": "0"}}},
            {"own": {f"record {name}:widest": {"name": f"{name}:widest", "sources": {}, "values": "0"}}},
            {"own": [f"{name}:twice"]},
        ):
            with pytest.raises(PackingError):
                Sweep().recorded(dict(opened("there").attrs) | forged)
        assert name not in sys.modules
        assert not Path("imported").exists()

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--rule=NAME:slow"], "--rule NAME:slow: there is no slow in NAME"),
            (["--rule=none_such:slow"], "--rule none_such:slow: there is no module none_such in"),
            (["--rule=NAME.py:twice"], "there is no module NAME.py in"),
            (["--rule=NAME.py:twice"], "; the module of NAME.py is NAME"),
            (["--rule=NAME:not_callable"], "the rule is of type int"),
            (["--rule=NAME:widest"], "the rule NAME:widest cannot be made from a kick"),
            (["--energy=NAME:soft"], "the energy is of type function; it must be a packing_jax.PairEnergy"),
            (["--energy=soft"], "--energy is 'soft'; an object of your own is given as module:object"),
            (["--record=NAME:widest"], "must be name=module:object"),
            (["--record=widest=NAME:not_callable"], "the observable widest is of type int"),
            (["--record=a=NAME:widest", "--record=a=NAME:both"], "--record names a twice"),
        ],
    )
    def test_bad_words(self, own, capsys, words, sentence):
        name = own()
        code, said = runs(
            capsys, "sweep", *GRID, *OPTIONS, "--out=there", *(word.replace("NAME", name) for word in words)
        )
        assert (code, said.count("\n")) == (2, 0)
        assert sentence.replace("NAME", name) in said
        assert not Path("there").exists()


class TestOnWorkers:
    def test_the_same_results(self, own, capsys):
        name = own()
        given = [*GRID, *OPTIONS, f"--rule={name}:twice", f"--record=widest={name}:widest"]
        assert runs(capsys, "sweep", *given, "--out=alone")[0] == 0
        assert runs(capsys, "sweep", *given, "--out=workers", "--local-workers=1")[0] == 0
        for array in ("positions", "widest"):
            np.testing.assert_array_equal(opened("alone")[array], opened("workers")[array])

    def test_a_worker_knows_that_its_version_is_another(self, own, tmp_path):
        name = own()
        run_sweep(small(rule=load(name).twice), tmp_path / "there")
        stored = opened("there").attrs["own"]
        assert changed_modules(stored) == []
        own("\nMORE = 1\n")
        assert changed_modules(stored) == []  # a module that is not imported is of no concern, and stays out
        load(name)
        assert changed_modules(stored) == [name]


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_rule.py"


def test_the_example(tmp_path):
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[2])}
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("HalfAbsorbed(value=0.8")
    results = opened(tmp_path / "own-rule")
    assert results["phi"].size == 8
    assert (results["farthest"].isel(time=-1) > 0.1).all()
    energy = results["energy"].isel(time=-1, kick=0, batch_fraction=0)
    assert (energy.sel(phi=0.76) > 0).all()  # absorbed, without a contact, and yet within reach of others
    assert (tmp_path / "own-rule" / "activity.png").stat().st_size > 10_000
