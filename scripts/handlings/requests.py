"""Handlings of a request: who may make it, what it holds, what is answered and written down."""

from typing import Final

from scripts.handlings.mutant import Mutant

PRESENCE: Final = "tests/service/test_presence.py"
MUTANTS: Final = (
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
        "threshold that only Python takes for a number",
        "service/operation.py",
        "float(text) if _NUMERALS.fullmatch(text) else -1.0",
        "float(text)",
        "tests/service/test_answers.py::TestOperatingPoint::test_nonsense_is_refused",
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
        "large bodies put together on the event loop",
        "service/uploads.py",
        "<= MOST_JOINED_AT_ONCE",
        ">= 0",
        "tests/service/test_uploads.py::test_only_small_bodies_are_put_together_on_the_event_loop",
    ),
    Mutant(
        "refusal of an administrator's call",
        "service/middleware.py",
        '            record(scope, refusal.code, "denied")\n',
        "",
        "tests/service/test_administration.py"
        "::test_what_administrators_do_is_recorded_whatever_comes_of_it",
    ),
    Mutant(
        "request that the drain cannot finish",
        "service/middleware.py",
        "if status or not State.of(scope).draining:",
        "if True:",
        "tests/service/test_process.py::test_what_the_drain_cannot_finish_is_refused",
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
        "log that nobody reads",
        "service/logs.py",
        "            self._urgent.set()\n        self._waiting.set()\n\n    def flush",
        "            self._write()\n        self._waiting.set()\n\n    def flush",
        "tests/service/test_logs.py::test_a_log_that_nobody_reads_holds_nobody_up",
        hangs=True,
    ),
    Mutant(
        "log in a pipe that does not wait for its reader",
        "service/logs.py",
        "                select([], [STDERR], [])\n",
        "                raise\n",
        "tests/service/test_logs.py::test_a_log_that_nobody_reads_holds_nobody_up[waits-not]",
    ),
    Mutant(
        "log on a full disk",
        "service/logs.py",
        "        self._unwritten = sum(",
        "        self._unwritten = 0 * sum(",
        "tests/service/test_logs.py"
        "::test_what_a_full_disk_took_of_the_log_is_said_and_no_line_glued_to_another",
    ),
    Mutant(
        "audit log that could not be rotated, and was moved",
        "service/audit.py",
        "            self._stuck, self._rotate_at = False, 0.0\n",
        "            pass\n",
        "tests/service/test_audit.py"
        "::test_after_a_file_that_could_not_be_rotated_was_moved_the_next_one_has_its_limit",
    ),
    Mutant(
        "audit log that cannot be rotated",
        "service/audit.py",
        "if not self._numbered(number).exists()), self._files",
        "if False), self._files",
        "tests/service/test_audit.py::test_a_file_that_cannot_be_moved_grows_and_no_older_one_is_lost",
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
        "wrong length of the file meta information",
        "service/content.py",
        "return (syntax, end) if at == end else",
        "return (syntax, end) if True else",
        "tests/service/test_content.py::test_a_wrong_length_hides_nothing_of_the_image",
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
        "text and pictures on a medium whose results are wanted as DICOM objects",
        "service/routes/predict.py",
        "upload.archived or _may_be_source(upload)",
        "_may_be_source(upload)",
        "tests/service/test_predict_dicom.py::test_what_is_no_dicom_in_an_archive_is_left_out",
    ),
    Mutant(
        "images of several frames of reference in one segmentation",
        "service/dicom/segmentation.py",
        "one.image.frame_of_reference_uid == other.image.frame_of_reference_uid\n        and ",
        "",
        "tests/service/test_dicom_segmentation.py::test_frames_of_reference_are_objects_of_their_own",
    ),
    Mutant(
        "leading spaces of an identifier that an archive compares",
        "service/dicom/patient.py",
        '.rstrip(" \\0")',
        '.strip(" \\0")',
        "tests/service/test_dicom_patient.py::test_identifiers_lose_only_their_padding",
    ),
    Mutant(
        "client that has left, and is no error",
        "service/middleware.py",
        "status, context.code = CLIENT_GONE, None",
        "status = CLIENT_GONE",
        f"{PRESENCE}::test_to_leave_is_no_error",
    ),
    Mutant(
        "body that is compressed as a whole",
        "service/uploads.py",
        "    check_coding(request.headers)\n",
        "",
        "tests/service/test_uploads.py::test_a_compressed_body_is_refused_and_the_answer_says_so",
    ),
    Mutant(
        "token of a gateway beside a key",
        "service/access.py",
        "    return own or [\n",
        "    return own + [\n",
        "tests/service/test_access.py::test_a_key_predicts",
    ),
    Mutant(
        "words of an address that are no names, in the audit log",
        "service/administration.py",
        " if named and form else None",
        " if form else None",
        "tests/service/test_administration.py::test_what_is_no_name_is_not_recorded",
    ),
    Mutant(
        "name without end in a zip file",
        "service/archives.py",
        "if any(len(member.filename) > MAX_NAME for member in members):",
        "if False:",
        "tests/service/test_archives.py::test_unusable_zip_is_refused",
    ),
)
