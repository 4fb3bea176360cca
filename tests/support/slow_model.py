"""The process that forks workers, whose model takes long to load."""

import time
from typing import Final

from service import worker

LOAD_SECONDS: Final = 2.0


class SlowBench(worker.Bench):
    """Is ready after a while."""

    def __init__(self, *arguments: object) -> None:
        time.sleep(LOAD_SECONDS)
        super().__init__(*arguments)  # type: ignore[arg-type]


if __name__ == "__main__":
    worker.Bench = SlowBench  # type: ignore[misc, assignment]
    worker.main()
