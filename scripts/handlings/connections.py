"""Handlings of connections, from their first byte to the end of the service."""

from typing import Final

from scripts.handlings.mutant import Mutant

CONNECTIONS: Final = "tests/service/test_connections.py"
CROWD: Final = "tests/service/test_crowd.py"
PIPELINING: Final = "tests/service/test_pipelining.py"
REFUSALS: Final = "tests/service/test_refusals.py"
TIMEOUTS: Final = "tests/service/test_timeouts.py"

EARLY_REFUSALS: Final = "tests/service/test_early_refusals.py"
PRESENCE: Final = "tests/service/test_presence.py"
MUTANTS: Final = (
    Mutant(
        "transfer coding that is not chunked alone",
        "service/framing.py",
        'return codings in ([], [b"chunked"])',
        "return True",
        f"{CONNECTIONS}::test_a_body_is_chunked_and_coded_in_no_other_way",
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
        "flood of refusals",
        "service/turnstile.py",
        "if not self._pacer.is_flooded(now):",
        "if True:",
        f"{REFUSALS}::test_in_a_flood_the_connection_itself_refuses_and_goes_on",
    ),
    Mutant(
        "many refused at once",
        "service/pacing.py",
        "self._free = turn + 1 / REFUSALS_PER_SECOND",
        "self._free = now",
        "tests/service/test_rates.py::test_the_more_are_refused_the_later_they_shall_return",
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
        f"{PIPELINING}::test_what_is_wrong_behind_requests_takes_none_of_their_answers_away",
    ),
    Mutant(
        "requests of a connection that wait in memory without end",
        "service/flow.py",
        "if not self._queued and not self.has_ended:",
        "if not self.has_ended:",
        f"{PIPELINING}::test_while_a_request_waits_its_client_is_not_listened_to",
    ),
    Mutant(
        "thousands of requests in one piece",
        "service/connections.py",
        "if len(self.pipeline) >= MAX_QUEUED:",
        "if False:",
        f"{PIPELINING}::test_of_what_comes_in_one_piece_only_so_many_requests_wait",
    ),
    Mutant(
        "target without a path behind requests",
        "service/connections.py",
        'if self.parser.get_method() == b"CONNECT" or not has_path(self.url):',
        "if False:",
        f"{PIPELINING}::test_what_is_wrong_takes_no_answer_of_a_queue_away",
    ),
    Mutant(
        "refusal behind an answer that is read slowly",
        "service/connections.py",
        "            self._timer = self.loop.call_later(LINGER_SECONDS, self._linger)",
        "            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)",
        f"{TIMEOUTS}::test_a_client_that_reads_slowly_gets_its_answer_before_a_refusal",
    ),
    Mutant(
        "answers to a client that sends nothing more",
        "service/connections.py",
        "        return not self._is_ending\n",
        "        return False\n",
        f"{PIPELINING}::test_who_sends_nothing_more_gets_the_answers_that_are_due",
    ),
    Mutant(
        "headers that do not arrive",
        "service/connections.py",
        "        self._crowd.add(self)\n        self._arm(self._limits.header_seconds)",
        "        self._crowd.add(self)",
        f"{TIMEOUTS}::test_a_client_that_says_nothing_is_let_go",
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
        "service/uploads.py",
        "asyncio.timeout(min(left, seconds))",
        "asyncio.timeout(60)",
        "tests/service/test_uploads.py::test_body_that_does_not_arrive_is_given_up",
    ),
    Mutant(
        "body that is slow but comes",
        "service/uploads.py",
        "start + seconds + received / MIN_BYTES_PER_SECOND - monotonic()",
        "start + seconds - monotonic()",
        "tests/service/test_uploads.py::test_body_that_is_slow_but_comes_has_its_time",
    ),
    Mutant(
        "body that stops",
        "service/uploads.py",
        "min(left, seconds)",
        "left",
        "tests/service/test_uploads.py::test_body_that_stops_has_no_time_for_what_came_before",
    ),
    Mutant(
        "body that a browser sends again",
        "service/errors.py",
        '    code = "body_timeout"\n',
        '    status = 408\n    code = "body_timeout"\n',
        "tests/service/test_page_busy.py::test_an_upload_that_takes_too_long_says_so",
    ),
    Mutant(
        "answer that is never read",
        "service/sending.py",
        "            self.abort()\n            return\n",
        "            pass\n",
        f"{TIMEOUTS}::test_an_answer_that_is_never_read_is_given_up",
    ),
    Mutant(
        "rest of an answer that is never read",
        "service/sending.py",
        "        self._transport.close()\n        self.watch()",
        "        self._transport.close()",
        f"{TIMEOUTS}::test_the_rest_of_an_answer_that_is_never_read_is_given_up",
    ),
    Mutant(
        "connection whose answer is still being read",
        "service/crowd.py",
        "            if member.has_sent_all:\n",
        "            if True:\n",
        f"{CROWD}::test_an_answer_that_is_still_being_read_makes_no_room",
    ),
    Mutant(
        "connection of a client that is far away",
        "service/crowd.py",
        "            if greedy is not None:\n",
        "            if False:\n",
        f"{CROWD}::test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected",
    ),
    Mutant(
        "connection that has just been opened",
        "service/crowd.py",
        "if member is None or now - members[member] < seconds:",
        "if member is None:",
        f"{CROWD}::test_who_keeps_all_connections_takes_none_of_a_client_that_has_just_connected",
    ),
    Mutant(
        "flood of clients that are refused",
        "service/crowd.py",
        "for _ in range(MAX_LOOKS):",
        "for _ in range(1000):",
        f"{CROWD}::test_a_flood_of_refused_clients_looks_at_few_connections",
    ),
    Mutant(
        "start without standard streams",
        "service/__main__.py",
        "    fill_standard_streams()\n",
        "",
        "tests/service/test_descriptors.py"
        "::test_without_standard_streams_it_says_by_its_exit_status_what_is_wrong",
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
        f"{CROWD}::test_what_has_been_idle_for_longest_makes_room_for_its_own_address",
    ),
    Mutant(
        "too many connections",
        "service/connections.py",
        "if self._crowd.is_full and not self._crowd.make_room(self.address):",
        "if False:",
        f"{CROWD}::test_too_many_connections_are_refused_until_one_ends",
    ),
    Mutant(
        "connections that are opened and not used",
        "service/crowd.py",
        "        return self._end_one(unfinished, GRACE_SECONDS) or (",
        "        return (",
        f"{CROWD}::test_where_connections_are_full_the_oldest_without_a_request_makes_room",
    ),
    Mutant(
        "client that leaves behind a large body",
        "service/connections.py",
        "            self.flow.resume_reading()\n",
        "            pass\n",
        f"{PRESENCE}::test_to_leave_is_no_error",
    ),
    Mutant(
        "body that is still sent behind its answer",
        "service/connections.py",
        "self.transport = outgoing = Outgoing(transport, self.loop, self._stays)",
        "self.transport = outgoing = Outgoing(transport, self.loop, lambda: False)",
        f"{EARLY_REFUSALS}::TestUnreadBody::test_whoever_sends_on_and_closes_reads_why",
    ),
    Mutant(
        "body that never ends behind the last answer",
        "service/connections.py",
        "            self._arm(self._limits.body_seconds)\n",
        "            pass\n",
        f"{EARLY_REFUSALS}::TestUnreadBody::test_who_sends_without_end_is_let_go",
    ),
    Mutant(
        "body that is wrong, told by its own request",
        "service/connections.py",
        "                cycle.body = BrokenBody(failure)  # type: ignore[assignment]",
        "                cycle.disconnected = True",
        f"{EARLY_REFUSALS}::TestBrokenBody::test_it_is_one_request",
    ),
    Mutant(
        "refusal by the connection in the log",
        "service/turnstile.py",
        '            logger.info("request", extra={"fields": line})\n',
        "            pass\n",
        f"{EARLY_REFUSALS}::TestBrokenHead::test_it_is_logged_under_the_id_that_its_client_has",
    ),
)
