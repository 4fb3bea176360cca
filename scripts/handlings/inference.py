"""Handlings of what predicts: versions, their runtimes and the batches."""

from typing import Final

from scripts.handlings.mutant import Mutant

FAULTS: Final = "tests/service/test_faults.py"
BATCHING: Final = "service/batching.py"
CREW_TESTS: Final = "tests/service/test_crew.py"

PRESENCE: Final = "tests/service/test_presence.py"
LEAKS: Final = "tests/service/test_leaks.py"
MUTANTS: Final = (
    Mutant(
        "bodies that their requests hold in a circle",
        "service/jobs.py",
        "self._files = []\n        return jobs",
        "return jobs",
        "tests/service/test_leaks.py::test_a_body_is_let_go_with_its_answer",
    ),
    Mutant(
        "version that hangs while it is loaded",
        "service/patience.py",
        "async with asyncio.timeout(seconds):",
        "async with asyncio.timeout(None):",
        "tests/service/test_models.py"
        "::test_a_version_that_hangs_while_it_is_loaded_is_refused_and_blocks_nobody",
    ),
    Mutant(
        "runtime that is lost while the store is away",
        "service/registry.py",
        "            if lost.runtime.file is None:\n",
        "            if True:\n",
        f"{FAULTS}::test_lost_runtime_is_rebuilt_of_what_was_verified_while_the_store_is_away",
    ),
    Mutant(
        "runtime that is rebuilt after an activation",
        "service/registry.py",
        "self._retire(engine, CLOSE_SECONDS)",
        "self._swap(engine)",
        f"{FAULTS}::test_runtime_that_is_rebuilt_after_an_activation_is_closed",
    ),
    Mutant(
        "runtime that is lost while an activation hangs",
        "service/registry.py",
        "            if self.active is None:\n                try:\n",
        "            async with self._changing:\n                try:\n",
        f"{FAULTS}::test_lost_runtime_is_rebuilt_while_an_activation_hangs",
    ),
    Mutant(
        "end of a service that loads a version that hangs",
        "service/patience.py",
        "daemon=True",
        "daemon=False",
        "tests/service/test_process.py::test_it_ends_while_a_version_hangs_that_it_loads",
    ),
    Mutant(
        "full queue",
        "service/pipeline.py",
        "if self.depth + images > self._capacity:",
        "if False:",
        f"{FAULTS}::test_full_queue_refuses_at_once",
    ),
    Mutant(
        "deadline, the client",
        "service/pipeline.py",
        "self._loop.call_later(max(0.0, deadline - monotonic()), group.finish)",
        "self._loop.call_later(60, group.finish)",
        f"{FAULTS}::test_deadline_passes_and_expired_work_is_never_predicted",
    ),
    Mutant(
        "deadline, expired work",
        BATCHING,
        "if job.outcome is None and job.expired():",
        "if False:",
        f"{FAULTS}::test_deadline_passes_and_expired_work_is_never_predicted",
    ),
    Mutant(
        "runtime that raises",
        BATCHING,
        '    except Exception:\n        logger.exception("inference failed"',
        '    except ZeroDivisionError:\n        logger.exception("inference failed"',
        f"{FAULTS}::test_runtime_that_raises_fails_only_its_batch",
    ),
    Mutant(
        "runtime that always raises",
        BATCHING,
        "if lane.failures >= MAX_FAILURES:",
        "if False:",
        f"{FAULTS}::test_runtime_that_always_raises_is_rebuilt",
    ),
    Mutant(
        "dead inference thread, the job in hand",
        BATCHING,
        "            self._fail(lane.current, self._lost)\n        finally",
        "        finally",
        "tests/service/test_batching.py::test_a_dead_thread_is_noticed_and_nothing_waits_for_it",
    ),
    Mutant(
        "dead inference thread, readiness",
        BATCHING,
        "if not lane.thread.is_alive() and not self._closing:",
        "if False:",
        "tests/service/test_batching.py::test_a_dead_thread_is_noticed_and_nothing_waits_for_it",
    ),
    Mutant(
        "batch that hangs",
        BATCHING,
        "if busy_since is not None and monotonic() - busy_since > batch_timeout_seconds:",
        "if False:",
        f"{FAULTS}::test_batch_that_hangs_is_given_up_and_the_runtime_rebuilt",
    ),
    Mutant(
        "runtime that is gone, readiness",
        "service/registry.py",
        "        self._go_down(failure)\n        # Its thread",
        "        # Its thread",
        f"{FAULTS}::test_readiness_drops_while_the_runtime_cannot_be_rebuilt",
    ),
    Mutant(
        "runtime that cannot be rebuilt at once",
        "service/registry.py",
        "        while self.active is None:\n            await asyncio.sleep(rebuild",
        "        if self.active is None:\n            await asyncio.sleep(rebuild",
        f"{FAULTS}::test_readiness_drops_while_the_runtime_cannot_be_rebuilt",
    ),
    Mutant(
        "slice that is given up while a thread decodes it",
        "service/batching.py",
        "            job.outcome = job.lost = failure",
        "            job.outcome = failure",
        "tests/service/test_batching.py::test_one_that_is_given_up_while_it_is_decoded_stays_so",
    ),
    Mutant(
        "slice that is answered while its version is abandoned",
        "service/batching.py",
        "[job for job in jobs if not job.delivered]",
        "[*jobs]",
        "tests/service/test_batching.py::test_what_is_being_answered_is_not_given_up",
    ),
    Mutant(
        "slice that a thread takes while its version is abandoned",
        "service/batching.py",
        "            self._fail(batch, self._lost)\n            return",
        "            pass",
        "tests/service/test_batching.py::test_what_a_thread_has_taken_but_not_in_hand_is_given_up",
    ),
    Mutant(
        "slice that hangs while it is decoded",
        "service/batching.py",
        "                lane.decoding_since = monotonic()\n",
        "",
        "tests/service/test_batching.py::test_a_slice_that_hangs_while_it_is_decoded_is_noticed",
    ),
    Mutant(
        "series that is analysed while its version is replaced",
        "service/engine.py",
        "self._jobs > 0 and self._settled == settled",
        "not self._idle.is_set()",
        "tests/service/test_engine.py"
        "::test_a_replaced_version_is_kept_as_long_as_a_series_needs_it",
    ),
    Mutant(
        "slice that comes while another one is decoded",
        BATCHING,
        "solo is not None and self._is_alone(lane) and",
        "solo is not None and",
        "tests/service/test_batching.py::TestLanes"
        "::test_a_job_beside_one_that_is_decoded_leaves_the_other_core_alone",
    ),
    Mutant(
        "version that is loaded just too late",
        "service/patience.py",
        "            late(future.result())\n        raise",
        "            pass\n        raise",
        "tests/service/test_engine.py"
        "::test_what_comes_when_the_patience_has_just_ended_is_not_lost",
    ),
    Mutant(
        "slice that is settled as it is let in",
        "service/jobs.py",
        "            self._active += 1\n            if not self._start(job):\n"
        "                self._active -= 1\n",
        "            if self._start(job):\n                self._active += 1\n            else:\n",
        "tests/service/test_jobs.py::test_what_is_settled_as_it_is_let_in_is_counted_once",
    ),
    Mutant(
        "workers of a version that was replaced",
        "service/engine.py",
        "                self.crew.close()",
        "                pass",
        f"{CREW_TESTS}::test_swaps_under_load_lose_nothing",
    ),
    Mutant(
        "answer that is not finite",
        BATCHING,
        "if len(array) != len(jobs) or not np.isfinite(array).all():",
        "if False:",
        "tests/service/test_batching.py::test_a_runtime_that_answers_nonsense_fails",
    ),
    Mutant(
        "swap under load",
        "service/pipeline.py",
        "            engine.acquire(1)\n            crew",
        "            crew",
        "tests/service/test_models.py::test_swaps_under_load_lose_nothing",
    ),
    Mutant(
        "image that comes after its version has ended",
        BATCHING,
        "        self._fail_queued(self._lost)\n\n    @property",
        "\n    @property",
        "tests/service/test_batching.py::test_what_comes_just_before_the_end_is_not_left_behind",
    ),
    Mutant(
        "version that fails its warm-up",
        "service/loader.py",
        '        except Exception as error:\n            logger.exception("the runtime failed',
        '        except ZeroDivisionError as error:\n            logger.exception("the runtime failed',
        "tests/service/test_models.py::test_a_failed_warm_up_leaves_the_old_one",
    ),
    Mutant(
        "version that is being copied in",
        "service/follower.py",
        "if found is None or not settled or",
        "if found is None or",
        "tests/service/test_watch.py::test_what_still_changes_is_not_tried",
    ),
    Mutant(
        "rollback that waits for an activation",
        "service/registry.py",
        "if self._history.last != left:",
        "if False:",
        "tests/service/test_models.py::test_a_rollback_never_goes_back_to_what_it_was_to_leave",
    ),
    Mutant(
        "TensorFlow off its device",
        "service/runtimes/tensorflow.py",
        "            if ran != wanted:",
        "            if False:",
        "tests/service/test_runtimes.py::test_settings_of_tensorflow",
    ),
    Mutant(
        "work of a client that has left",
        "service/jobs.py",
        "                job.deadline = 0.0\n        self.finish()\n",
        "                job.deadline = 0.0\n",
        f"{PRESENCE}::test_the_work_of_a_client_that_has_left_is_dropped",
    ),
    Mutant(
        "version that was replaced, and its queue",
        "service/loader.py",
        "ref(engine)",
        "lambda: engine",
        f"{LEAKS}::test_a_version_is_let_go_once_another_one_serves[0]",
    ),
    Mutant(
        "version that was refused",
        "service/patience.py",
        "clear_frames(error.__traceback__)",
        "pass",
        f"{LEAKS}::test_a_version_is_let_go_once_another_one_serves[0]",
    ),
    Mutant(
        "requests while no model serves",
        "service/registry.py",
        "raise self.failure.with_traceback(None)",
        "raise self.failure",
        f"{LEAKS}::test_requests_that_find_no_model_leave_nothing_behind",
    ),
    Mutant(
        "shadow version that is the one that serves",
        "service/shadow.py",
        "if active.manifest_digest == self._stored.manifest_digest:",
        "if False:",
        "tests/service/test_drift.py::TestShadow::test_the_version_that_serves_would_only_agree",
    ),
)
