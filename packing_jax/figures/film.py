"""Movies as GIFs, which every browser shows."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

LAST_SECONDS = 1.5  #: for which the last frame is shown


def write_gif(out: BinaryIO, canvases: Iterator[Any], count: int, fps: int) -> None:
    """Write frames as they are drawn, one at a time in memory.

    Args:
        out: the file.
        canvases: of matplotlib's Agg, each as it is at its turn; there may be one that is drawn anew.
        count: of frames.
        fps: frames per second.
    """
    from PIL import Image

    def pictures() -> Iterator[Any]:
        for canvas in canvases:
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            yield picture.quantize(64, dither=Image.Dither.NONE)

    every = pictures()
    shown = [round(1000 / fps)] * (count - 1) + [round(1000 * LAST_SECONDS)]
    next(every).save(out, "GIF", save_all=True, append_images=every, duration=shown, loop=0)
