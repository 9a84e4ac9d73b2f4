"""Movies of trajectories: discs to scale, those that overlap coloured, as GIF or MP4."""

import contextlib
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import tyro
from tqdm import tqdm

from packing_jax.errors import PackingError, printable
from packing_jax.figures.film import LAST_SECONDS, write_gif
from packing_jax.sweeps.folder import Folder
from packing_jax.sweeps.frames import Frames, opened
from packing_jax.sweeps.manifest import Entry
from packing_jax.sweeps.reader import Reader
from packing_jax.sweeps.trajectory import frames_of, hoomd_schema, trajectory_name

_PASSIVE, _ACTIVE, _EDGE = "#dfe3e8", "#d1495bb0", "#4a5058"  # red is half transparent: both discs of an overlap show
_DPI = 120
_INCHES = (5.0, 6.3)  # an even number of pixels, which MP4 needs


@dataclass(frozen=True, kw_only=True)
class MovieCommand:
    """Make a movie of one replica of a run or sweep with --trajectory.

    - Shows discs in 2D; in 3D, the cuts of the spheres by the plane z = 0, in
      the middle of the box. Those that overlap are red.
    - Below them: the activity so far, the fraction of particles that overlap.
    - With --trajectory log, time is logarithmic and the first steps are seen
      as well as the last ones; with every:K, time is linear.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What run or sweep wrote with --out."""
    cell: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Number of the cell, as for rerun. Default: the first that has a trajectory."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE.mp4|.gif", help_behavior_hint="")] = None
    """File to write. Default: DIR/movies/CELL.mp4 if ffmpeg is installed, else CELL.gif."""
    fps: int = 10
    """Frames per second. The last frame stays for 1.5 seconds."""

    def execute(self, command: str) -> int:
        """Draw and write."""
        sweep = Reader(self.directory)
        entry, name = find_trajectory(sweep, self.cell)
        out = self.out
        if out is None:
            kind = ".mp4" if shutil.which("ffmpeg") else ".gif"
            out = self.directory / "movies" / f"{Path(name).stem}{kind}"
            try:
                Folder(self.directory).make("movies")
            except OSError as error:
                raise PackingError(f"cannot write {out}: {error.strerror or error}") from error
        frames = write_movie(sweep, entry, out, self.fps)
        print(printable(f"{out}: {frames} frames of {Path(name).name}"))
        return 0


def find_trajectory(sweep: Reader, cell: int | None) -> tuple[Entry, str]:
    """What the manifest says of a cell by its number, or of the first that has a trajectory, and the name of this file.

    Raises:
        PackingError: no such cell, or no trajectory of it.
    """
    count = math.prod(sweep.cells.shape)
    if cell is not None and not 0 <= cell < count:
        raise PackingError(f"there is no cell {cell}; {sweep.directory} has cells 0 to {count - 1}")
    folder = Folder(sweep.directory)
    places = sorted(sweep.entries) if cell is None else [tuple(map(int, np.unravel_index(cell, sweep.cells.shape)))]
    for place in places:
        entry, name = sweep.entries.get(place), trajectory_name(sweep.cells.dims, sweep.cells.name(place))
        if entry is not None and folder.is_file(name):
            return entry, name
    which = "no cell" if cell is None else f"no cell {cell}"
    raise PackingError(
        f"{sweep.directory} has {which} with a trajectory: cells get one as they finish, if run or sweep is given "
        "--trajectory"
    )


def write_movie(sweep: Reader, entry: Entry, out: Path, fps: int = 10) -> int:
    """Draw every frame of the trajectory of a finished cell; the file appears when it is complete.

    Args:
        sweep: to which it belongs.
        entry: of the cell.
        out: ends in .gif or .mp4.
        fps: frames per second, 1 to 50.

    Returns:
        The number of frames.

    Raises:
        PackingError: a damaged file, another ending of the name, no ffmpeg for MP4, or a disk that cannot be written.
    """
    if not 1 <= fps <= 50:
        raise PackingError(f"{fps} frames per second; it must be from 1 to 50")
    writers: dict[str, Callable[[BinaryIO, FramePicture, Collection[Any], int], None]] = {
        ".gif": _write_gif,
        ".mp4": _write_mp4,
    }
    if out.suffix not in writers:
        raise PackingError(f"--out is {out}; it must end in .mp4 or .gif")
    if out.suffix == ".mp4" and not shutil.which("ffmpeg"):
        raise PackingError("MP4 needs the program ffmpeg, which is not on the PATH; install it, or write a .gif")
    hoomd_schema()
    try:
        with _frames(sweep, entry) as found:
            last = found.step(len(found) - 1)
            ended = entry.absorbed_at if entry.state == "absorbed" else None
            canvas = FramePicture(found.frame(0), last, ended, even=sweep.attributes["trajectory"] != "log")
            out.parent.mkdir(parents=True, exist_ok=True)
            frames = tqdm(found, desc=out.name, unit=" frames", leave=False, disable=None)
            with Folder(out.parent).replacing(out.name, flushed=False) as draft:
                writers[out.suffix](draft, canvas, frames, fps)
            return len(found)
    except OSError as error:
        raise PackingError(f"cannot write {out}: {error.strerror or error}") from error
    except subprocess.CalledProcessError as error:
        raise PackingError(f"ffmpeg could not write {out} (exit code {error.returncode}); write a .gif") from error


@contextlib.contextmanager
def _frames(sweep: Reader, entry: Entry) -> Iterator[Frames]:
    """Those of a finished cell, which is named where they are damaged."""
    where = frames_of(sweep.cells.dims, sweep.attributes, entry.cell)
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(opened(Folder(sweep.directory), *where, entry.trajectory))
        except PackingError as error:
            place = sweep.cells.place(entry.cell)
            raise PackingError(str(error) if place is None else sweep.damaged(place, error)) from error
        yield found


class FramePicture:
    """A figure that is drawn anew for each frame of one box."""

    def __init__(self, first: Any, last: int, absorbed_at: int | None, *, even: bool) -> None:
        """Lay out the figure.

        Args:
            first: a frame of the same box.
            last: step of the last frame.
            absorbed_at: step of absorption, None where the activity goes on.
            even: time is linear on the axis of the activity; otherwise logarithmic.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.side, self._absorbed_at = float(first.configuration.box[0]), absorbed_at
        self.figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
        self.agg: Any = FigureCanvasAgg(self.figure)
        self._axes, below = self.figure.subplots(2, height_ratios=(5, 1))
        half = self.side / 2
        self._axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        self._axes.set(xlabel=r"$x/\bar\sigma$", ylabel=r"$y/\bar\sigma$")
        self._discs: Any = None
        below.set(xlim=(0, max(last, 1)), ylim=(0, 1), yticks=(0, 1), xlabel="step", ylabel="activity")
        if not even:
            below.set_xscale("symlog", linthresh=1)
            below.set_xlim(0, max(last, 1) * 1.05)
        self._steps: list[int] = []
        self._activity: list[float] = []
        (self._curve,) = below.plot([], [], color=_ACTIVE[:7], lw=1.5, marker="o", ms=4, markevery=[-1], clip_on=False)

    def show(self, frame: Any) -> None:
        """Draw a frame, which is later than those before it."""
        from matplotlib.collections import EllipseCollection

        if self._discs is not None:
            self._discs.remove()
        centres, radii, active = discs(frame)
        self._discs = EllipseCollection(
            2 * radii,
            2 * radii,
            np.zeros(len(radii)),
            units="xy",
            offsets=centres,
            offset_transform=self._axes.transData,
            facecolors=np.where(active, _ACTIVE, _PASSIVE),
            edgecolors=_EDGE,
            linewidths=min(0.7, 12 / np.sqrt(len(radii) + 1)),
        )
        self._axes.add_collection(self._discs)
        step, activity = int(frame.configuration.step), float(frame.log["activity"][0])
        self._steps.append(step)
        self._activity.append(activity)
        self._curve.set_data(self._steps, self._activity)
        ended = self._absorbed_at is not None and step >= self._absorbed_at
        title = rf"step {step:,}    $\phi$ = {float(frame.log['phi'][0]):g}    "
        title += "absorbed: no two overlap" if ended else f"activity {activity:.3f}"
        cut = "\ncut of the box at z = 0" if frame.configuration.dimensions == 3 else ""
        self._axes.set_title(title + cut, fontsize=10)


def discs(frame: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The discs of a frame with their periodic images: centres (M, 2), radii (M,) and which overlap another (M,).

    In 3D a disc is where a sphere of radius R at height z is cut by the plane z = 0: its radius is sqrt(R^2 - z^2).
    """
    half = float(frame.configuration.box[0]) / 2
    x, radius = frame.particles.position.astype(float), frame.particles.diameter.astype(float) / 2
    flat = frame.configuration.dimensions == 2
    cut = radius**2 - (0.0 if flat else x[:, 2] ** 2)
    met = cut > 0
    centre, radius, active = x[met, :2], np.sqrt(cut[met]), frame.log["particles/active"][met].astype(bool)
    shifts = [2 * half * np.array(shift) for shift in product((-1, 0, 1), repeat=2)]
    centre = np.concatenate([centre + shift for shift in shifts])
    radius, active = np.tile(radius, len(shifts)), np.tile(active, len(shifts))
    seen = (np.abs(centre) < half + radius[:, None]).all(axis=1)
    # those that overlap come last, on top
    order = np.argsort(active[seen], kind="stable")
    return centre[seen][order], radius[seen][order], active[seen][order]


def _write_gif(out: BinaryIO, canvas: FramePicture, frames: Collection[Any], fps: int) -> None:
    def drawn() -> Iterator[Any]:
        for frame in frames:
            canvas.show(frame)
            yield canvas.agg

    write_gif(out, drawn(), len(frames), fps)


def _write_mp4(out: BinaryIO, canvas: FramePicture, frames: Collection[Any], fps: int) -> None:
    from matplotlib.animation import FFMpegWriter

    writer = FFMpegWriter(fps=fps)
    with tempfile.TemporaryDirectory() as place:  # ffmpeg takes a name, and could be led elsewhere by a link
        movie = Path(place) / "movie.mp4"
        with writer.saving(canvas.figure, str(movie), _DPI):
            for frame in frames:
                canvas.show(frame)
                writer.grab_frame()
            for _ in range(round(fps * LAST_SECONDS)):
                writer.grab_frame()
        with movie.open("rb") as file:
            shutil.copyfileobj(file, out)
