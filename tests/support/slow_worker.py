"""The process that forks workers, on a machine where it takes long to start."""

import time

if __name__ == "__main__":
    time.sleep(4)
    from service.worker import main

    main()
