"""Writes the golden slices and the digests of the model inputs that they give.

To be run, and its result looked at, only when the preprocessing changes on purpose, and its
``algorithm`` with it: ``python -m tests.contract.golden``.
"""

import hashlib
import json

from PIL import Image

from contract.decoding import decode
from contract.preprocessing import preprocess
from tests.contract.samples import GOLDEN, SLICES


def main() -> None:
    """One PNG for each real slice, as it is decoded, and ``digests.json``."""
    GOLDEN.mkdir(exist_ok=True)
    digests: dict[str, str] = {}
    for path in SLICES:
        pixels = decode(path.read_bytes()).pixels
        Image.fromarray(pixels).save(GOLDEN / f"{path.stem}.png", optimize=True)
        digests[path.stem] = hashlib.sha256(preprocess(pixels).tobytes()).hexdigest()
    text = json.dumps(digests, indent=2, sort_keys=True) + "\n"
    (GOLDEN / "digests.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
