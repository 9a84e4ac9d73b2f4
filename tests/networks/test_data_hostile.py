"""Files that lie, that are meant to run code or to take all memory, and files with any bytes changed."""

import gzip
import io
import os
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from data_files import SAMPLES, cifar_batch, cifar_images, idx, images, labels, table
from hypothesis import strategies as st

from packing_jax.errors import PackingError
from packing_jax.networks.data import Data
from packing_jax.networks.files import load

MIB = 2**20


@contextmanager
def little_memory(most: int = 4 * MIB) -> Iterator[None]:
    """Fails where more memory is taken at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["instead", "inside", "beside"])
def test_no_pickle_runs_anything(tmp_path: Path, protocol: int, place: str) -> None:
    ran = Runs(tmp_path / "ran")
    batch = {"data": cifar_images(), "labels": labels().tolist()}
    content = {"instead": ran, "inside": {**batch, "labels": [ran]}, "beside": {**batch, "more": ran}}[place]
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(PackingError, match="asks for 'posix mkdir', which no batch of CIFAR-10 needs, and is not read"):
        load(tmp_path / "batch")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "batch").read_bytes())  # Python's own machine does
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (b"\x80\x02cos\nsystem\n(X\x01\x00\x00\x00.tR.", "asks for 'os system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01.\x85R.", "asks for 'os system'"),
        (b"\x80\x02(ios\nsystem\n.", "asks for INST"),
        (b"\x80\x02(cos\nsystem\no.", "asks for OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "asks for NEWOBJ"),
        (b"\x80\x04cos\nsystem\n)}\x92.", "asks for NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "asks for EXT1"),
        (b"\x80\x02Pname\n.", "asks for PERSID"),
        (b"\x80\x02Nq\x00Q.", "asks for BINPERSID"),
        (b"\x80\x05\x97.", "asks for NEXT_BUFFER"),
        (b"\x80\x02S'text'\n.", "asks for STRING"),
        (b"\x80\x02cnumpy\nload\n(tR.", "asks for 'numpy load'"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n(tR.", "asks for 'numpy.core.multiarray scalar'"),
        (b"\x80\x02Nr\xff\xff\xff\xff.", "not a batch of CIFAR-10"),  # memory for 2**32 entries
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "not a batch of CIFAR-10"),  # bytes without end
        (b"\x80\x02]q\x00h\x00a.", "not a batch of CIFAR-10"),  # a list within itself
        (b"\x80\x02K\x01(tR.", "not a batch of CIFAR-10"),
        (b"\x80\x02}(cnumpy\ndtype\nNu.", "not a batch of CIFAR-10"),
        (b"\x80\x02" + b"\x85" * 9 + b".", "not a batch of CIFAR-10"),
        (b"\x80\x02" + b"e" * 9 + b".", "not a batch of CIFAR-10"),
        (b"\x80\x02", "not a batch of CIFAR-10"),
        (b"\x80\x02" + b")" + b"\x85" * 9999 + b".", "not a batch of CIFAR-10"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_that_is_no_batch_is_refused(tmp_path: Path, program: bytes, sentence: str) -> None:
    (tmp_path / "batch").write_bytes(program)
    with little_memory(200 * MIB), pytest.raises(PackingError, match=sentence):
        load(tmp_path / "batch")


def test_a_program_of_more_steps_than_any_batch_is_refused(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(b"\x80\x02" + b"]" * MIB + b".")
    with pytest.raises(PackingError, match="of more steps than a batch"):
        load(tmp_path / "batch")


def test_keys_whose_hash_takes_for_ever_are_refused(tmp_path: Path) -> None:
    """A tuple of a tuple twice, sixty times over: 2**60 to hash."""
    program = b"\x80\x02)" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(60)) + b"q\x60}h\x60Ns."
    (tmp_path / "batch").write_bytes(program)
    with pytest.raises(PackingError, match="not a batch of CIFAR-10"):
        load(tmp_path / "batch")


def test_text_that_is_named_again_and_again_is_not_copied(tmp_path: Path) -> None:
    long = b"X" + struct.pack("<I", MIB) + b"a" * MIB
    for again in (
        b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R",
        b"h\x00h\x00\x93",
        b"cnumpy\ndtype\nh\x00\x85R",
    ):
        (tmp_path / "batch").write_bytes(b"\x80\x04" + long + b"q\x00" + again * 2000 + b".")
        with little_memory(16 * MIB), pytest.raises(PackingError, match="not a batch of CIFAR-10"):
            load(tmp_path / "batch")


def idx_claiming(*shape: int) -> bytes:
    return struct.pack(">4I", 2051, *shape) + bytes(100)


def test_an_idx_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    for shape in ((2**31, 2**31, 2**31), (60_000, 28, 28), (2**32 - 1, 1, 1)):
        for content in (idx_claiming(*shape), gzip.compress(idx_claiming(*shape))):
            (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
            with little_memory(), pytest.raises(PackingError, match="more than the file can hold"):
                load(tmp_path / "train-images-idx3-ubyte")


def test_a_packed_idx_file_is_not_unpacked_beyond_its_claim(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(idx(images()) + bytes(50 * MIB))
    with little_memory(), pytest.raises(PackingError, match="more in it than the 7 x 4 x 3 bytes"):
        load(tmp_path / "train-images-idx3-ubyte.gz")


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 8 MiB, half of which a set may take."""
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 8 * MIB}[name])


@pytest.mark.usefixtures("small_machine")
def test_an_honest_set_that_is_too_large_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4I", 2051, 20, MIB, 1) + bytes(20 * MIB), compresslevel=1)
    )
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"0,0,0,0,0,0,0,0,0,0\n" * MIB)
    np.savez_compressed(tmp_path / "a.npz", inputs=np.zeros((20, MIB), np.uint8), targets=np.zeros(20))
    halves = np.zeros((3, MIB), np.uint8)  # each of which would do
    np.savez_compressed(tmp_path / "b.npz", x_train=halves, x_test=halves, y_train=np.zeros(3), y_test=np.zeros(3))
    for name in ("train-images-idx3-ubyte.gz", "a.csv.gz", "a.npz", "b.npz"):
        with little_memory(16 * MIB), pytest.raises(PackingError, match="more than half of what this machine has"):
            load(tmp_path / name)


def test_a_table_of_one_endless_line_is_not_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"0," * (10 * MIB))
    with little_memory(80 * MIB), pytest.raises(PackingError, match="a line is longer than 16777216 characters"):
        load(tmp_path / "a.csv")


def npz(member: bytes, claimed: int | None = None) -> bytes:
    """An archive with this as the content of ``inputs.npy``, and a size claimed for it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inputs.npy", member)
        archive.writestr("targets.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8)))
    content = file.getvalue()
    if claimed is not None:
        at = content.index(b"PK\1\2")
        content = content[: at + 24] + struct.pack("<I", claimed) + content[at + 28 :]
    return content


def npy(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            npz(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1]))),
            "not an array of plain",
        ),
        (
            npz(npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }")),
            "not an array of plain numbers",
        ),
        (npz(npy("__import__('os').mkdir('ran')")), "not an array of plain numbers"),
        (
            npz(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1" * 60000 + "), }")),
            "not an array of plain",
        ),
        (
            npz(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 8000 + "x), }")),
            "not an array of plain",
        ),
        (npz(npy("(" * 60000)), "not an array of plain numbers"),
        (npz(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }")), "not an array of plain numbers"),
        (npz(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9,), }", bytes(8))), "claims 72 bytes"),
        (npz(npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**18}, {10**18}), }}")), "claims 8000000"),
        (npz(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (100000000,), }"), 800000067), "claims 800000000"),
        (npz(b"no array"), "not an array of plain numbers"),
        (npz(b""), "not an array of plain numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_array_that_lies_takes_no_memory_and_runs_nothing(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with little_memory(), pytest.raises(PackingError, match=sentence):
        load(tmp_path / "a.npz")


def test_a_size_that_both_headers_claim_is_held_against_the_file(tmp_path: Path) -> None:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000,), }"
    (tmp_path / "a.npz").write_bytes(npz(npy(header), 8 * 10**8 + len(header) + 10))
    with little_memory(), pytest.raises(PackingError, match="more than the file can hold"):
        load(tmp_path / "a.npz")


def test_other_compression_and_encryption_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("inputs.npy", bytes(MIB))
        archive.writestr("targets.npy", bytes(9))
    with pytest.raises(PackingError, match="compressed in a way that numpy does not write"):
        load(tmp_path / "a.npz")
    content = bytearray(npz(b""))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(PackingError, match=r"it is not an ordinary npz file: .*encrypted"):
        load(tmp_path / "a.npz")


def arrays_as_npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, x_train=images(), y_train=labels(), x_test=images(), y_test=labels())
    return file.getvalue()


def array_as_npy() -> bytes:
    file = io.BytesIO()
    np.save(file, images()[:1].astype(np.float32))
    return file.getvalue()


WHOLE = {
    "train-images-idx3-ubyte": idx(images()),
    "train-images-idx3-ubyte.gz": gzip.compress(idx(images()), mtime=0),
    "a.npz": arrays_as_npz(),
    "inputs.npy in a.npz": array_as_npy(),
    "a.csv": table().encode(),
    "a.csv.gz": gzip.compress(table().encode(), mtime=0),
    "batch": cifar_batch(samples=1),
}
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["change", "insert", "remove", "cut"]), st.floats(0, 1), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, new in edits:
        at = int(where * len(content))
        after = {"change": at + len(new), "insert": at, "remove": at + len(new), "cut": len(content)}[kind]
        content = content[:at] + (new if kind in ("change", "insert") else b"") + content[after:]
    return content


def loaded(path: Path) -> Data | str:
    """A set or a sentence; any other exception is the test's failure."""
    try:
        return load(path)
    except PackingError as error:
        return str(error)


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.sampled_from(sorted(WHOLE)), EDITS)
def test_any_change_gives_a_set_or_a_sentence(name: str, edits: list[tuple[str, float, bytes]]) -> None:
    content = edited(WHOLE[name], edits)
    if name == "inputs.npy in a.npz":  # changed below the checksum
        name, content = "a.npz", npz(content)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        (Path(folder) / "train-labels-idx1-ubyte").write_bytes(idx(labels()))
        found = loaded(Path(folder) / name)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert len(found.inputs) == len(found.targets) <= 3 * SAMPLES


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    st.sampled_from([b"", b"\x80\x02", b"PK\3\4", b"\0\0\x08\3\0\0\0\1", b"\x1f\x8b\x08\0", b"\x93NUMPY\1\0"]),
    st.binary(max_size=200),
)
def test_any_bytes_give_a_set_or_a_sentence(head: bytes, rest: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train-images-idx3-ubyte"
        path.write_bytes(head + rest)
        found = loaded(path)
    assert isinstance(found, Data) or "\n" not in found


def test_whole_files_are_read_before_they_are_changed(tmp_path: Path) -> None:
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels()))
    for name, content in WHOLE.items():
        path = tmp_path / ("a.npz" if " in " in name else name)
        path.write_bytes(npz(content) if " in " in name else content)
        assert isinstance(loaded(path), Data)
