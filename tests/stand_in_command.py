"""What stands in for `packing-jax` where figures are made in processes of their own."""

import json
import sys
import time
from pathlib import Path


def main() -> int:
    """Say how far it is, then fail, wait or print, by the name of the figure."""
    name, out = sys.argv[2], Path(sys.argv[sys.argv.index("--out") + 1])
    out.mkdir(parents=True, exist_ok="--resume" in sys.argv)
    sys.stderr.write(json.dumps({"event": "progress", "share": 0.5, "what": "half"}) + "\n")
    sys.stderr.flush()
    if name == "slow":
        time.sleep(60)
    if name == "bad":
        sys.stderr.write("packing-jax: no disk\n")
        return 1
    sys.stdout.write(" ".join([name, *sys.argv[3:], "\n"]))
    return 0
