"""Handlings of the workers."""

from typing import Final

from scripts.handlings.mutant import Mutant

CREW: Final = "service/crew.py"
CREW_TESTS: Final = "tests/service/test_crew.py"
BATCHES: Final = "tests/service/test_crew_batches.py"

LEAKS: Final = "tests/service/test_leaks.py"

MUTANTS: Final = (
    Mutant(
        "worker that ends, the picture in hand",
        CREW,
        "            self._fail([begun], RuntimeLost",
        "            (begun, RuntimeLost",
        f"{CREW_TESTS}::test_a_worker_that_ends_costs_one_picture",
    ),
    Mutant(
        "worker that ends, what waits behind it",
        CREW,
        "        self._queue.extendleft(reversed(worker.jobs))",
        "        pass",
        f"{CREW_TESTS}::test_a_worker_that_ends_costs_one_picture",
    ),
    Mutant(
        "worker that hangs",
        "service/worker.py",
        "signal.setitimer(signal.ITIMER_REAL, order.task_seconds)",
        "pass",
        f"{CREW_TESTS}::test_a_worker_that_ends_costs_one_picture",
    ),
    Mutant(
        "worker that stands still",
        CREW,
        "while not worker.gone.done() and worker.silent < self._most_looks:",
        "while not worker.gone.done():",
        f"{CREW_TESTS}::test_workers_that_stand_still_are_replaced[ends]",
    ),
    Mutant(
        "worker that stands still, its process",
        "service/link.py",
        "                os.kill(self.pid, signal.SIGKILL)",
        "                pass",
        f"{CREW_TESTS}::test_workers_that_stand_still_are_replaced[ends]",
    ),
    Mutant(
        "worker that is busy, but answers",
        "service/link.py",
        "            self.silent = 0\n",
        "",
        f"{CREW_TESTS}::test_workers_that_always_have_something_in_hand_stay",
    ),
    Mutant(
        "process that forks workers and stands still",
        CREW,
        "                        self._forks.doubt(forks)",
        "                        pass",
        f"{CREW_TESTS}::test_the_process_that_forks_is_replaced_where_it_stands_still",
    ),
    Mutant(
        "workers that take long to start",
        CREW,
        "HIRE_SECONDS * 2 ** min(attempt, MAX_DOUBLINGS)",
        "HIRE_SECONDS",
        f"{CREW_TESTS}::test_workers_that_take_long_to_start_come_all_the_same",
    ),
    Mutant(
        "worker whose model takes long to load",
        "service/worker.py",
        "signal.setitimer(signal.ITIMER_REAL, seconds)",
        "signal.setitimer(signal.ITIMER_REAL, 1.0)",
        f"{BATCHES}::test_a_worker_has_as_long_to_load_as_it_is_waited_for[waited for]",
    ),
    Mutant(
        "worker that is not ready when nobody waits any more",
        "service/worker.py",
        "            signal.setitimer(signal.ITIMER_REAL, seconds)\n",
        "",
        f"{BATCHES}::test_a_worker_has_as_long_to_load_as_it_is_waited_for[given up]",
    ),
    Mutant(
        "file of several slices at a worker",
        CREW,
        "            self._others(job)\n            return False",
        "            return False",
        f"{CREW_TESTS}::test_workers_answer_objects_as_threads_do",
    ),
    Mutant(
        "no worker left",
        CREW,
        "            if job.outcome is None:\n                self._others(job)",
        "            if job.outcome is None:\n                pass",
        f"{CREW_TESTS}::test_when_all_workers_end_the_threads_take_over",
    ),
    Mutant(
        "no worker left to answer",
        CREW,
        "                self._settle([job])",
        "                pass",
        f"{BATCHES}::test_when_all_workers_end_the_service_answers_itself",
    ),
    Mutant(
        "slices of a batch that no worker decoded",
        CREW,
        "        self._settle(rest)",
        "        pass",
        f"{BATCHES}::test_workers_answer_as_threads_do[none]",
    ),
    Mutant(
        "worker that ends over an answer",
        "service/worker.py",
        "        answer_soundly(job)\n        return Meaning(",
        "        job.answer = Answer.of(predicted.outputs, predicted.geometry, rules)\n"
        "        return Meaning(",
        f"{BATCHES}::test_what_cannot_be_answered_is_an_error_of_its_own",
    ),
    Mutant(
        "slices that expire before they are handed out",
        CREW,
        "self._loop.call_soon(self._settle, jobs)",
        "self._settle(jobs)",
        f"{CREW_TESTS}::test_what_expires_before_it_is_handed_out_is_counted_once",
    ),
    Mutant(
        "worker whose model always fails",
        "service/worker.py",
        "while bench.failures < MAX_FAILURES:",
        "while True:",
        f"{CREW_TESTS}::test_a_worker_whose_model_fails_again_and_again_is_replaced",
    ),
    Mutant(
        "version that was replaced, and its workers' tasks",
        CREW,
        "        self._tasks.clear()\n",
        "",
        f"{LEAKS}::test_a_version_is_let_go_once_another_one_serves[2]",
    ),
)
