"""Small data files in every form, written by hand or by the libraries that write them."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np

SAMPLES = 7


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SAMPLES, 4, 3)).astype(np.uint8)


def labels() -> np.ndarray:
    return np.arange(SAMPLES, dtype=np.uint8) * 3 % 10


def idx(array: np.ndarray) -> bytes:
    magic = 2051 if array.ndim == 3 else 2049
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = False) -> None:
    """The four files, the test images being the training images turned round."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, step in (("train", 1), ("t10k", -1)):
        for kind, array in (("images-idx3-ubyte", images()[::step]), ("labels-idx1-ubyte", labels()[::step])):
            content = idx(array)
            (folder / f"{part}-{kind}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)


def cifar_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SAMPLES, 3072)).astype(np.uint8)


def cifar_batch(seed: int = 0, samples: int = SAMPLES) -> bytes:
    """A batch byte for byte as Python 2 wrote those of CIFAR-10, with fewer images."""
    data = cifar_images(seed)[:samples].tobytes()
    numbers = b"".join(b"K" + bytes([label]) for label in labels()[:samples])
    names = b"".join(b"U\x05%d.png" % digit + b"q" + bytes([30 + digit]) for digit in range(samples))
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05(" + numbers + b"e"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87q\x0b"
        b"Rq\x0c(K\x01K" + bytes([samples]) + b"M\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10"
        b"Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89T"
        + struct.pack("<I", len(data)) + data + b"q\x14tq\x15bU\tfilenamesq\x16]q\x17(" + names + b"eu."
    )  # fmt: skip


def write_cifar(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(cifar_batch(number))
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": cifar_images(6), b"labels": labels().tolist()}))


def write_keras(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x_train=images(), y_train=labels(), x_test=images()[::-1], y_test=labels()[::-1])


def table(label_first: bool = False) -> str:
    """Comma-separated values, pixels and then the label."""
    columns = [labels()[:, None], images().reshape(SAMPLES, -1)]
    rows = np.concatenate(columns if label_first else columns[::-1], axis=1)
    return "".join(",".join(map(str, row)) + "\n" for row in rows)
