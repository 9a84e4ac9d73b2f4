"""Every notebook runs from its script, at smoke size in a kernel of its own, and the .ipynb beside it is its pair."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHORT = (
    *("01_phase_diagram", "02_bro_is_sgd", "03_universality", "04_hyperuniformity"),
    *("08_absorbing_networks", "09_limiting_dynamics", "10_eigenvalue_dynamics"),
)
LONG = ("05_gradients", "06_design_a_packing", "07_flat_minima", "12_manifold_packing")  # slow: by hand
NAMES = tuple(sorted(SHORT + LONG))
MOST_BYTES = 400_000

# In a process of its own: pytest's turns the warnings of every library into errors, and nbclient would need its event
# loop. Kernels of other environments are not asked: the one that runs is this Python.
RUN = """
import sys
import jupytext
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

class ThisPython(AsyncKernelManager):
    @property
    def kernel_spec(self):
        launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=launch, language="python")

notebook = jupytext.read(sys.argv[1])
place = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, timeout=600, kernel_manager_class=ThisPython, resources=place).execute()
figures = [out for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
complaints = [
    out.text
    for cell in notebook.cells
    for out in cell.get("outputs", [])
    if out.output_type == "stream" and out.name == "stderr"
]
print(len(figures), "figures")
assert not complaints, complaints
"""


def test_all_are_tested():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.py")) == list(NAMES)
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.validation) for name in LONG)])
def test_runs_in_a_clean_kernel(name, tmp_path):
    surroundings = {
        **os.environ,
        "PACKING_JAX_SMOKE": "1",
        "JAX_PLATFORMS": "cpu",
        "IPYTHONDIR": str(tmp_path),  # nobody's startup files
        "PYTHONWARNINGS": "default",
    }
    script = NOTEBOOKS / f"{name}.py"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(script), str(tmp_path)],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) >= 2, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_has_the_same_cells_and_outputs(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    pair, script = nbformat.read(path, as_version=4), jupytext.read(NOTEBOOKS / f"{name}.py")
    nbformat.validate(pair)
    assert [(cell.cell_type, cell.source) for cell in pair.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], f"notebooks/{name}.ipynb is not its script's: jupytext --sync, and run it again"
    code = [cell for cell in pair.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from the top"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert path.stat().st_size < MOST_BYTES
    assert pair.cells[0].cell_type == "markdown"
    assert "?" in pair.cells[0].source.splitlines()[0], "a notebook opens with its question"
