"""What `scripts.mutants` takes away: the handling of each fault, and the test that belongs to it."""

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """One handling, taken away.

    Attributes:
        name: the fault.
        file: where it is handled.
        old, new: the code that does, which is there once, and what takes its place.
        test: what has to fail then.
        hangs: the test may wait without end instead, for what was a limit on waiting.
    """

    name: str
    file: str
    old: str
    new: str
    test: str
    hangs: bool = False


FAULTS: Final = "tests/service/test_faults.py"
BATCHING: Final = "service/batching.py"
CREW: Final = "service/crew.py"
CREW_TESTS: Final = "tests/service/test_crew.py"
BATCHES: Final = "tests/service/test_crew_batches.py"
CONNECTIONS: Final = "tests/service/test_connections.py"

SANDBOX: Final = "contract/sandbox.py"
SANDBOX_TESTS: Final = "tests/contract/test_sandbox.py"

SPOOL_TESTS: Final = "tests/pacs/test_spool_faults.py"

SCORES_TESTS: Final = "tests/training/test_scores.py"
TRUST_TESTS: Final = "tests/training/test_trust.py"

MUTANTS: Final = (
    Mutant(
        "decoder that crashes",
        SANDBOX,
        "            case Outcome.CRASHED:\n                raise DecoderCrashed(",
        "            case Outcome.CRASHED:\n                raise UndecodableImage(",
        f"{SANDBOX_TESTS}::test_fault_has_its_error_and_the_next_call_works[abort-DecoderCrashed]",
    ),
    Mutant(
        "decoder's process that stands still",
        SANDBOX,
        "generation if kept else -1",
        "generation",
        f"{SANDBOX_TESTS}::test_child_that_stands_still_is_replaced",
    ),
    Mutant(
        "decoder that takes its process with it",
        SANDBOX,
        "        except (EOFError, OSError):\n            raise DecoderCrashed(",
        "        except (EOFError, OSError):\n            raise UndecodableImage(",
        f"{SANDBOX_TESTS}::test_fault_has_its_error_and_the_next_call_works"
        "[kill-parent-DecoderCrashed]",
    ),
    Mutant(
        "more bytes in memory than allowed",
        "service/buffers.py",
        "if self.used + size > self._limit:",
        "if False:",
        "tests/service/test_frames.py::test_what_deflated_objects_hold_is_counted",
    ),
    Mutant(
        "body that stops while others need its room",
        "service/buffers.py",
        "                give_up()\n",
        "                pass\n",
        "tests/service/test_buffers.py::test_two_bodies_that_stop_keep_nobody_else_out",
    ),
    Mutant(
        "bytes that a thread holds after its request",
        "service/buffers.py",
        "            if claim.ended:\n                return\n",
        "",
        "tests/service/test_archives.py"
        "::test_what_a_thread_claims_after_the_end_of_its_request_is_not_counted",
    ),
    Mutant(
        "start of the maker's process within a deadline",
        "service/dicom/answer.py",
        "deadline += monotonic() - began",
        "pass",
        "tests/service/test_predict_dicom.py"
        "::test_the_start_of_the_process_takes_nothing_from_the_deadline",
    ),
    Mutant(
        "misspelled threshold",
        "service/operation.py",
        "_check_names(query, (*PARAMETERS, *others))",
        "pass",
        "tests/service/test_answers.py"
        "::TestOperatingPoint::test_a_parameter_that_does_not_exist_or_comes_twice_is_refused",
    ),
    Mutant(
        "bodies that their requests hold in a circle",
        "service/jobs.py",
        "self._files = []\n        return jobs",
        "return jobs",
        "tests/service/test_leaks.py::test_a_body_is_let_go_with_its_answer",
    ),
    Mutant(
        "large bodies put together on the event loop",
        "service/uploads.py",
        "<= MOST_JOINED_AT_ONCE",
        ">= 0",
        "tests/service/test_uploads.py::test_only_small_bodies_are_put_together_on_the_event_loop",
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
        "connections that wait to be accepted when the service ends",
        "service/server.py",
        "duplicate.listen(0)",
        "pass",
        "tests/service/test_process.py"
        "::test_who_connects_just_before_it_stops_listening_finds_the_door_closed",
    ),
    Mutant(
        "training that is killed inside a phase",
        "training/fit.py",
        "if saved is not None and progress.epoch:",
        "if False:",
        "tests/training/test_resume.py::test_killed_inside_a_phase_it_goes_on_to_the_same_end",
    ),
    Mutant(
        "workers that would train other runs",
        "training/fit.py",
        "    if differ:\n",
        "    if False:\n",
        "tests/training/test_begin.py::test_workers_that_differ_train_nothing",
    ),
    Mutant(
        "staged version of an export that was killed",
        "contract/store.py",
        "                if is_locked:\n",
        "                if False:\n",
        "tests/contract/test_store.py"
        "::TestStaging::test_what_a_killed_export_left_is_removed_by_the_next",
    ),
    Mutant(
        "part of the service that cannot be ended",
        "service/ending.py",
        'logger.exception("a part of the service could not be ended")',
        "raise",
        "tests/pacs/test_series.py::test_a_part_that_cannot_be_ended_holds_up_no_other",
    ),
    Mutant(
        "full queue",
        "service/pipeline.py",
        "if self.depth + images > self._capacity:",
        "if False:",
        f"{FAULTS}::test_full_queue_refuses_at_once",
    ),
    Mutant(
        "flood of refusals",
        "service/turnstile.py",
        "if not self._pacer.is_flooded(now):",
        "if True:",
        f"{CONNECTIONS}::test_in_a_flood_the_connection_itself_refuses_and_goes_on",
    ),
    Mutant(
        "many refused at once",
        "service/pacing.py",
        "self._free = turn + 1 / REFUSALS_PER_SECOND",
        "self._free = now",
        "tests/service/test_rates.py::test_the_more_are_refused_the_later_they_shall_return",
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
        "version that is loaded just too late",
        "service/patience.py",
        "            late(future.result())\n        raise",
        "            pass\n        raise",
        "tests/service/test_engine.py"
        "::test_what_comes_when_the_patience_has_just_ended_is_not_lost",
    ),
    Mutant(
        "worker that hangs",
        "service/worker.py",
        "signal.setitimer(signal.ITIMER_REAL, order.task_seconds)",
        "pass",
        f"{CREW_TESTS}::test_a_worker_that_ends_costs_one_picture",
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
        "slice that is settled as it is let in",
        "service/jobs.py",
        "            self._active += 1\n            if not self._start(job):\n"
        "                self._active -= 1\n",
        "            if self._start(job):\n                self._active += 1\n            else:\n",
        "tests/service/test_jobs.py::test_what_is_settled_as_it_is_let_in_is_counted_once",
    ),
    Mutant(
        "worker whose model always fails",
        "service/worker.py",
        "while bench.failures < MAX_FAILURES:",
        "while True:",
        f"{CREW_TESTS}::test_a_worker_whose_model_fails_again_and_again_is_replaced",
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
        "SIGTERM, accepted requests",
        "service/server.py",
        "        state.drain()\n        asyncio.get_running_loop()"
        ".call_later(self._notice_seconds, self._let_in_the_last)",
        "        self.force_exit = self.should_exit = True",
        "tests/service/test_process.py::test_request_in_flight_is_finished",
    ),
    Mutant(
        "SIGTERM, readiness",
        "service/server.py",
        "        state.drain()\n",
        "",
        "tests/service/test_process.py::test_signal_loses_no_accepted_request",
    ),
    Mutant(
        "SIGTERM, exit status",
        "service/server.py",
        "    @contextmanager\n    def capture_signals(",
        "    @contextmanager\n    def captured(",
        "tests/service/test_process.py::test_signal_loses_no_accepted_request",
    ),
    Mutant(
        "terminal that hangs up",
        "service/server.py",
        "            loop.add_signal_handler(signal.SIGHUP, self._hang_up)",
        "            pass",
        "tests/service/test_process.py::test_a_terminal_that_hangs_up_twice_ends_nothing_at_once",
    ),
    Mutant(
        "request that names no host, or two",
        "service/connections.py",
        "if not is_named_once(self.url, self.headers, self.parser.get_http_version()):",
        "if False:",
        f"{CONNECTIONS}::test_a_request_names_one_host",
    ),
    Mutant(
        "answers that a client waits for when it sends what is no HTTP",
        "service/connections.py",
        "elif cycle.response_complete:",
        "elif True:",
        f"{CONNECTIONS}::test_what_is_wrong_behind_requests_takes_none_of_their_answers_away",
    ),
    Mutant(
        "requests of a connection that wait in memory without end",
        "service/connections.py",
        "if not self._queued and not self.has_ended:",
        "if not self.has_ended:",
        f"{CONNECTIONS}::test_while_a_request_waits_its_client_is_not_listened_to",
    ),
    Mutant(
        "thousands of requests in one piece",
        "service/connections.py",
        "if len(self.pipeline) >= MAX_QUEUED:",
        "if False:",
        f"{CONNECTIONS}::test_of_what_comes_in_one_piece_only_so_many_requests_wait",
    ),
    Mutant(
        "target without a path behind requests",
        "service/connections.py",
        'if self.parser.get_method() == b"CONNECT" or not _has_path(self.url):',
        "if False:",
        f"{CONNECTIONS}::test_what_is_wrong_takes_no_answer_of_a_queue_away",
    ),
    Mutant(
        "refusal behind an answer that is read slowly",
        "service/connections.py",
        "            self._timer = self.loop.call_later(LINGER_SECONDS, self._linger)",
        "            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)",
        f"{CONNECTIONS}::test_a_client_that_reads_slowly_gets_its_answer_before_a_refusal",
    ),
    Mutant(
        "answers to a client that sends nothing more",
        "service/connections.py",
        "        return not self._is_ending\n",
        "        return False\n",
        f"{CONNECTIONS}::test_who_sends_nothing_more_gets_the_answers_that_are_due",
    ),
    Mutant(
        "refusal of an administrator's call",
        "service/middleware.py",
        'if action := action_of(scope["method"], scope["path"]):',
        "if action := None:",
        "tests/service/test_administration.py"
        "::test_what_administrators_do_is_recorded_whatever_comes_of_it",
    ),
    Mutant(
        "swap under load",
        "service/pipeline.py",
        "            engine.acquire(1)\n            crew",
        "            crew",
        "tests/service/test_models.py::test_swaps_under_load_lose_nothing",
    ),
    Mutant(
        "swap within a series",
        "service/pacs/analysis.py",
        "        with engine.held():\n",
        "        if True:\n",
        "tests/pacs/test_series.py::"
        "test_a_version_that_is_replaced_finishes_the_series_it_has_begun",
    ),
    Mutant(
        "stop while a series is begun",
        "service/pacs/analysis.py",
        "await asyncio.shield(beginning)",
        "await beginning",
        "tests/pacs/test_series.py::test_a_stop_while_a_series_is_begun_is_no_attempt",
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
        "service/registry.py",
        '        except Exception as error:\n            logger.exception("the runtime failed',
        '        except ZeroDivisionError as error:\n            logger.exception("the runtime failed',
        "tests/service/test_models.py::test_a_failed_warm_up_leaves_the_old_one",
    ),
    Mutant(
        "damaged version",
        "contract/store.py",
        "        if not same:",
        "        if False:",
        "tests/service/test_models.py::test_a_version_that_must_not_serve_leaves_the_old_one",
    ),
    Mutant(
        "publish killed, half a version",
        "contract/store.py",
        "            staged.rename(target)",
        "            shutil.copytree(staged, target)",
        "tests/contract/test_store.py::TestPublish::"
        "test_a_publish_killed_anywhere_leaves_all_or_nothing",
    ),
    Mutant(
        "version that is being copied in",
        "service/follower.py",
        "if found is None or not settled or",
        "if found is None or",
        "tests/service/test_watch.py::test_what_still_changes_is_not_tried",
    ),
    Mutant(
        "headers that do not arrive",
        "service/connections.py",
        "        self._crowd.add(self)\n        self._arm(self._limits.header_seconds)",
        "        self._crowd.add(self)",
        f"{CONNECTIONS}::test_a_client_that_says_nothing_is_let_go",
    ),
    Mutant(
        "trailers without end",
        "service/connections.py",
        "            self._trailer_bytes += len(data)\n",
        "            pass\n",
        f"{CONNECTIONS}::test_trailers_have_a_largest_size",
    ),
    Mutant(
        "body that does not arrive",
        "service/receiving.py",
        "asyncio.timeout(settings.body_timeout_ms / 1000)",
        "asyncio.timeout(60)",
        "tests/service/test_uploads.py::test_body_that_does_not_arrive_is_given_up",
    ),
    Mutant(
        "answer that is never read",
        "service/sending.py",
        "            self.abort()\n            return\n",
        "            pass\n",
        f"{CONNECTIONS}::test_an_answer_that_is_never_read_is_given_up",
    ),
    Mutant(
        "rest of an answer that is never read",
        "service/sending.py",
        "        self._transport.close()\n        self.watch()",
        "        self._transport.close()",
        f"{CONNECTIONS}::test_the_rest_of_an_answer_that_is_never_read_is_given_up",
    ),
    Mutant(
        "connection whose answer is still being read",
        "service/crowd.py",
        "            if member.has_sent_all:\n",
        "            if True:\n",
        f"{CONNECTIONS}::test_an_answer_that_is_still_being_read_makes_no_room",
    ),
    Mutant(
        "connection of a client that is far away",
        "service/crowd.py",
        "            if greedy is not None:\n",
        "            if False:\n",
        f"{CONNECTIONS}"
        "::test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected",
    ),
    Mutant(
        "connection that has just been opened",
        "service/crowd.py",
        "if member is None or now - members[member] < seconds:",
        "if member is None:",
        f"{CONNECTIONS}"
        "::test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected",
    ),
    Mutant(
        "flood of clients that are refused",
        "service/crowd.py",
        "for _ in range(MAX_LOOKS):",
        "for _ in range(1000):",
        f"{CONNECTIONS}::test_a_flood_of_refused_clients_looks_at_few_connections",
    ),
    Mutant(
        "more connections than a process may have files open",
        "service/__main__.py",
        "    raise_limit(most(settings.max_connections))\n",
        "",
        "tests/service/test_descriptors.py::test_connections_are_not_limited_by_the_usual_limit_of_files",
    ),
    Mutant(
        "connections behind a proxy",
        "service/crowd.py",
        "own is not None and self._end_one(",
        "False and self._end_one(",
        f"{CONNECTIONS}::test_what_has_been_idle_for_longest_makes_room_for_its_own_address",
    ),
    Mutant(
        "too many connections",
        "service/connections.py",
        "if self._crowd.is_full and not self._crowd.make_room(self.address):",
        "if False:",
        f"{CONNECTIONS}::test_too_many_connections_are_refused_until_one_ends",
    ),
    Mutant(
        "connections that are opened and not used",
        "service/crowd.py",
        "        return self._end_one(unfinished, GRACE_SECONDS) or (",
        "        return (",
        f"{CONNECTIONS}::test_where_connections_are_full_the_oldest_without_a_request_makes_room",
    ),
    Mutant(
        "request that the drain cannot finish",
        "service/middleware.py",
        "if status or not State.of(scope).draining:",
        "if True:",
        "tests/service/test_process.py::test_what_the_drain_cannot_finish_is_refused",
    ),
    Mutant(
        "rollback that waits for an activation",
        "service/registry.py",
        "if self._served[-1:] != left:",
        "if False:",
        "tests/service/test_models.py::test_a_rollback_never_goes_back_to_what_it_was_to_leave",
    ),
    Mutant(
        "position that is the same in all slices",
        "contract/series.py",
        "if len(gathered) == 1:",
        "if False:",
        "tests/contract/test_series.py::test_one_position_stated_by_all_is_as_good_as_none",
    ),
    Mutant(
        "slices of a series that could not be read",
        "service/series.py",
        "unknown = failed or ",
        "unknown = ",
        "tests/service/test_series.py::test_a_series_that_lacks_slices_is_not_without_a_tumour",
    ),
    Mutant(
        "slices of a series that the model cannot judge",
        "service/series.py",
        " or is_mostly_unfamiliar(familiar.count(False), len(familiar))",
        "",
        "tests/service/test_series.py"
        "::test_a_series_that_is_mostly_unlike_the_training_data_is_left_to_a_person",
    ),
    Mutant(
        "different slices that share identifier and place",
        "service/series.py",
        "if is_one_image(jobs[members[at]], job):",
        "if True:",
        "tests/service/test_series.py::test_slices_that_share_identifier_and_place_all_count",
    ),
    Mutant(
        "different slices whose probabilities are the same",
        "service/series.py",
        "SAME_LOGARITHM: Final = 1e-2",
        "SAME_LOGARITHM: Final = 1e9",
        "tests/service/test_series.py::test_what_tells_an_image_from_another_one_of_its_uid",
    ),
    Mutant(
        "different images of one identifier from a PACS",
        "service/pacs/inbox.py",
        " AND (digest IN (?, x'') OR analysed) RETURNING",
        " AND ? IS NOT NULL RETURNING",
        "tests/pacs/test_inbox.py"
        "::test_another_file_under_the_uid_of_one_that_waits_stays_beside_it",
    ),
    Mutant(
        "more pixels than an object states",
        "contract/dicom_pixels.py",
        "if surplus > max(form.frame_bytes // form.rows, 1):",
        "if False:",
        "tests/contract/test_dicom_refused.py::TestRefused::test_more_values_than_pixels",
    ),
    Mutant(
        "log that nobody reads",
        "service/logs.py",
        "            self._urgent.set()\n        self._waiting.set()\n\n    def flush",
        "            self._write()\n        self._waiting.set()\n\n    def flush",
        "tests/service/test_logs.py::test_a_log_that_nobody_reads_holds_nobody_up",
        hangs=True,
    ),
    Mutant(
        "audit log whose disk fails for long",
        "service/audit.py",
        "while len(self._block) < MAX_BLOCK_LINES:",
        "while True:",
        "tests/service/test_audit.py::test_a_disk_that_fails_for_long_does_not_fill_the_memory",
    ),
    Mutant(
        "audit log that something else takes away",
        "service/audit.py",
        "return os.path.samestat(os.fstat(file.fileno()), self._path.stat())",
        "return True",
        "tests/service/test_audit.py::test_after_its_file_was_taken_away_it_goes_on_in_a_new_one",
    ),
    Mutant(
        "name that has a key, told by the time that another one takes",
        "service/keys.py",
        "for _ in range(self._most - len(keys)):",
        "for _ in range(0):",
        "tests/service/test_access.py"
        "::test_it_takes_as_many_comparisons_whether_there_is_such_a_key_or_not",
    ),
    Mutant(
        "client over its rate",
        "service/rates.py",
        "wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second",
        "wait = 0.0",
        "tests/service/test_rates.py::test_over_its_rate_a_client_gets_429",
    ),
    Mutant(
        "results while the PACS is away",
        "service/pacs/delivery.py",
        "            await self._threads.run(self._outbox.postpone, later, wait_seconds)",
        "            await self._threads.run(self._outbox.remove, list(later))",
        "tests/pacs/test_delivery.py::test_one_refused_object_does_not_hold_up_its_neighbours",
    ),
    Mutant(
        "object of elements without end",
        "contract/dicom_size.py",
        "        if self._elements > MAX_ELEMENTS:",
        "        if False:",
        "tests/contract/test_dicom_refused.py::TestBombs::test_elements_without_end_in_a_sequence",
    ),
    Mutant(
        "results that the PACS does not confirm",
        "service/pacs/destination.py",
        "if code is None and sop not in stored and (stored or others):",
        "if False:",
        "tests/pacs/test_delivery.py::test_what_is_not_confirmed_is_not_delivered",
    ),
    Mutant(
        "slice that arrives while its series is parked",
        "service/pacs/inbox.py",
        "            if _is_whole(connection, series):\n                connection.execute(\n",
        "            if True:\n                connection.execute(\n",
        "tests/pacs/test_inbox.py::test_a_series_with_a_late_slice_is_not_parked",
    ),
    Mutant(
        "wrong length of the file meta information",
        "service/content.py",
        "return (syntax, end) if at == end else",
        "return (syntax, end) if True else",
        "tests/service/test_content.py::test_a_wrong_length_hides_nothing_of_the_image",
    ),
    Mutant(
        "series that was set aside and is sent again",
        "service/pacs/inbox.py",
        '"UPDATE instances SET analysed = 1 WHERE series = ?", (series.uid,)',
        '"UPDATE instances SET analysed = 0 WHERE series = ?", (series.uid,)',
        "tests/pacs/test_inbox.py::test_what_is_sent_after_a_series_was_set_aside_takes_its_place",
    ),
    Mutant(
        "correction that arrives while its series is analysed",
        "service/pacs/inbox.py",
        " AND new.id > old.id AND NOT new.analysed)",
        " AND new.id > old.id AND NOT new.analysed AND 0)",
        "tests/pacs/test_inbox.py"
        "::test_a_correction_that_comes_during_the_analysis_takes_the_place_of_what_it_corrects",
    ),
    Mutant(
        "file that cannot be removed after its instances were replaced",
        "service/pacs/inbox.py",
        'logger.exception("files that nothing refers to could not be removed")',
        "raise",
        "tests/pacs/test_inbox.py"
        "::test_what_is_accepted_stays_though_what_it_replaces_cannot_be_removed",
    ),
    Mutant(
        "ledger whose disk is full",
        "service/pacs/ledger.py",
        "if isinstance(error, sqlite3.Error) and _is_of_the_disk(error):",
        "if False:",
        "tests/pacs/test_inbox.py::test_a_ledger_that_the_disk_does_not_take",
    ),
    Mutant(
        "page whose name comes to mean the service's address",
        "service/access.py",
        "            _refuse_other_names(scope, self._hosts)\n",
        "",
        "tests/service/test_access.py"
        "::test_without_keys_it_may_not_be_called_by_a_name_that_anybody_may_have",
    ),
    Mutant(
        "clock that was ahead",
        "service/pacs/ledger.py",
        'IS_DUE: Final = "(due <= ? OR due > ?)"',
        'IS_DUE: Final = "(due <= ? OR (due > ? AND 0))"',
        "tests/pacs/test_inbox.py::test_what_was_put_off_while_the_clock_was_ahead_is_due",
    ),
    Mutant(
        "result that cannot be read for now",
        "service/pacs/delivery.py",
        "if isinstance(error, FileNotFoundError):",
        "if True:",
        "tests/pacs/test_delivery.py::test_a_result_that_cannot_be_read_for_now_is_delivered_later",
    ),
    Mutant(
        "spool whose disk stalls",
        "service/routes/dicomweb.py",
        "run = gateway.threads.run",
        "run = asyncio.to_thread",
        f"{SPOOL_TESTS}::test_a_disk_that_stalls_holds_up_what_a_pacs_sends_and_nobody_else",
    ),
    Mutant(
        "end of the process while a disk stalls",
        "service/pacs/threads.py",
        "daemon=True",
        "daemon=False",
        f"{SPOOL_TESTS}::test_it_ends_while_the_disk_stalls",
    ),
    Mutant(
        "health while the spool cannot be read",
        "service/pacs/gateway.py",
        "except (OSError, sqlite3.Error, SpoolFull) as error:",
        "except KeyError as error:",
        f"{SPOOL_TESTS}::test_health_and_metrics_are_answered_while_the_spool_cannot_be_read",
    ),
    Mutant(
        "series while the disk fails",
        "service/pacs/analysis.py",
        "        except SpoolFull:\n            raise\n        except (Unid",
        "        except (Unid",
        f"{SPOOL_TESTS}::test_a_disk_that_fails_for_a_while_sets_no_series_aside[reading]",
    ),
    Mutant(
        "request that breaks off on a bad disk",
        "service/pacs/segments.py",
        "        with suppress(OSError):\n            self._file.close()\n",
        "        self._file.close()\n",
        f"{SPOOL_TESTS}"
        "::test_a_request_that_breaks_off_on_a_bad_disk_holds_up_its_series_no_longer[close]",
    ),
    Mutant(
        "answer of the PACS without end",
        "service/pacs/destination.py",
        "if len(content) > MAX_ANSWER_BYTES:",
        "if False:",
        "tests/pacs/test_destination.py::test_of_an_answer_without_end_only_so_much_is_read[200]",
    ),
    Mutant(
        "answer of the PACS that drips",
        "service/pacs/destination.py",
        "async with asyncio.timeout(seconds):",
        "if True:",
        "tests/pacs/test_destination.py::test_an_answer_that_drips_is_not_waited_for",
    ),
    Mutant(
        "large instance that is read as a whole",
        "service/pacs/receiver.py",
        "head = self._segment.read(self._start, HEAD_BYTES)",
        "head = self._segment.read(self._start, 10**9)",
        "tests/pacs/test_inbox.py::test_of_a_large_instance_only_the_beginning_is_read",
    ),
    Mutant(
        "TensorFlow off its device",
        "service/runtimes/tensorflow.py",
        "            if ran != wanted:",
        "            if False:",
        "tests/service/test_runtimes.py::test_settings_of_tensorflow",
    ),
    Mutant(
        "share of none or all",
        "training/scores.py",
        "if basis.share:",
        "if False:",
        f"{SCORES_TESTS}::test_a_share_of_none_or_all_has_limits_all_the_same",
    ),
    Mutant(
        "interval of too few groups",
        "training/scores.py",
        "if count < MIN_GROUPS or not np.isfinite(whole):",
        "if not np.isfinite(whole):",
        f"{SCORES_TESTS}::test_fewer_than_five_groups_have_no_interval",
    ),
    Mutant(
        "precision of a class that does not occur",
        "training/scores.py",
        "Basis((predicted == i, ours), share=True)",
        "Basis((predicted == i,), share=True)",
        f"{SCORES_TESTS}::test_a_class_that_does_not_occur_has_no_figures_and_no_interval",
    ),
    Mutant(
        "calibration error of all slices at once",
        "training/calibrate.py",
        "edges = np.linspace(0, 1, bins + 1)",
        "edges = np.linspace(0, 1, 2)",
        "tests/training/test_calibrate.py::test_the_calibration_error_is_counted_bin_by_bin",
    ),
    Mutant(
        "operating point that misses its aim",
        "training/calibrate.py",
        "    if found < SENSITIVITY:",
        "    if False:",
        "tests/training/test_calibrate.py::test_tumors_of_probability_0_are_missed_with_a_word",
    ),
    Mutant(
        "first region record for the best",
        "training/regions.py",
        "if best is None or dice > best[0]:",
        "if best is None:",
        f"{TRUST_TESTS}::test_the_region_record_has_the_best_dice_and_few_enough_false_regions",
    ),
    Mutant(
        "false alarms among tumours",
        "training/trust.py",
        "(false, inside & ~test.tumor)",
        "(false, inside & test.tumor)",
        f"{TRUST_TESTS}::test_decisions_are_counted_by_kind_of_slice",
    ),
    Mutant(
        "copies that narrow the interval of a decision",
        "training/trust.py",
        "**shares(counted, test.groups)}",
        "**shares(counted, np.arange(len(test.groups)))}",
        f"{TRUST_TESTS}::test_one_picture_that_is_there_many_times_widens_the_interval_of_a_share",
    ),
    Mutant(
        "coverage of a class",
        "training/trust.py",
        "(covered, truth == index)",
        "(covered, every)",
        f"{TRUST_TESTS}::test_prediction_sets_are_those_that_the_service_answers",
    ),
    Mutant(
        "coverage of slices in distribution",
        "training/trust.py",
        '"familiar": (covered, familiar)',
        '"familiar": (covered, every)',
        f"{TRUST_TESTS}::test_prediction_sets_are_those_that_the_service_answers",
    ),
    Mutant(
        "sizes of prediction sets",
        "training/trust.py",
        "(sizes == n).mean()",
        "(sizes >= n).mean()",
        f"{TRUST_TESTS}::test_prediction_sets_are_those_that_the_service_answers",
    ),
    Mutant(
        "left-out set with tumours of an unstated kind",
        "training/entries.py",
        "tumor = tumor_of_test(found)\n",
        'tumor = tumor_of_test({**found, "answers": None})\n',
        "tests/training/test_card.py"
        "::test_of_a_set_that_was_left_out_the_record_has_what_the_set_can_show",
    ),
    Mutant(
        "title that is cut off",
        "training/plots.py",
        'ylabel="truth", title=textwrap.fill(title, TITLE_WIDTH))',
        'ylabel="truth", title=title)',
        "tests/training/test_plots.py::test_long_titles_are_not_cut_off",
    ),
)
