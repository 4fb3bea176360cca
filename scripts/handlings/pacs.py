"""Handlings of the way from and to a PACS."""

from typing import Final

from scripts.handlings.mutant import Mutant

SPOOL_TESTS: Final = "tests/pacs/test_spool_faults.py"
RECEIVER: Final = "tests/pacs/test_receiver.py"
STALLS: Final = "tests/pacs/test_spool_stalls.py"

MUTANTS: Final = (
    Mutant(
        "part of the service that cannot be ended",
        "service/ending.py",
        'logger.exception("a part of the service could not be ended")',
        "raise",
        "tests/pacs/test_restarts.py::test_a_part_that_cannot_be_ended_holds_up_no_other",
    ),
    Mutant(
        "swap within a series",
        "service/pacs/analysis.py",
        "        with engine.held():\n",
        "        if True:\n",
        "tests/pacs/test_analysis.py::"
        "test_a_version_that_is_replaced_finishes_the_series_it_has_begun",
    ),
    Mutant(
        "stop while a series is begun",
        "service/pacs/analysis.py",
        "await asyncio.shield(beginning)",
        "await beginning",
        "tests/pacs/test_restarts.py::test_a_stop_while_a_series_is_begun_is_no_attempt",
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
        "results while the PACS is away",
        "service/pacs/delivery.py",
        "            await self._postpone(later, wait_seconds)",
        "            await self._notes.write(partial(self._outbox.remove, list(later)))",
        "tests/pacs/test_delivery.py::test_one_refused_object_does_not_hold_up_its_neighbours",
    ),
    Mutant(
        "result on a bad sector",
        "service/pacs/delivery.py",
        "or self._unread[parcels[0].number] >= MAX_UNREADABLE",
        "or False",
        f"{SPOOL_TESTS}::test_a_result_on_a_bad_sector_is_parked_and_holds_up_no_other",
    ),
    Mutant(
        "result on a bad sector, the objects beside it",
        "service/pacs/delivery.py",
        "if isinstance(error, Unreadable) and len(parcels) > 1:",
        "if False:",
        f"{SPOOL_TESTS}::test_of_a_result_on_a_bad_sector_the_objects_beside_it_are_delivered",
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
        "tests/pacs/test_receiver.py"
        "::test_what_is_accepted_stays_though_what_it_replaces_cannot_be_removed",
    ),
    Mutant(
        "ledger whose disk is full",
        "service/pacs/ledger.py",
        "if isinstance(error, sqlite3.Error) and _is_of_the_disk(error):",
        "if False:",
        "tests/pacs/test_spool.py::test_a_ledger_that_the_disk_does_not_take",
    ),
    Mutant(
        "spool in a folder of another user",
        "service/pacs/ledger.py",
        "            check_folder(folder)\n",
        "",
        "tests/pacs/test_spool.py::test_a_folder_that_only_another_user_may_write_to_is_named[.]",
    ),
    Mutant(
        "start on a read-only file system",
        "service/disks.py",
        "    if error.errno == errno.EROFS:\n",
        "    if False:\n",
        "tests/pacs/test_spool.py::test_a_spool_on_a_read_only_mount_is_no_full_disk",
    ),
    Mutant(
        "start on a full disk",
        "service/__main__.py",
        "DISK_FAILS if isinstance(error, DiskFails) else INVALID_SETTINGS",
        "INVALID_SETTINGS",
        "tests/pacs/test_restarts.py::test_a_start_on_a_full_disk_is_worth_another_one",
    ),
    Mutant(
        "file of the spool that cannot be removed at the start",
        "service/pacs/segments.py",
        "                with suppress(OSError):\n                    path.unlink()\n",
        "                path.unlink()\n",
        "tests/pacs/test_spool.py::test_a_file_that_cannot_be_removed_at_the_start_stops_nothing",
    ),
    Mutant(
        "clock that was ahead",
        "service/pacs/ledger.py",
        'IS_DUE: Final = "(due <= ? OR due > ?)"',
        'IS_DUE: Final = "(due <= ? OR (due > ? AND 0))"',
        "tests/pacs/test_inbox.py::test_what_was_put_off_while_the_clock_was_ahead_is_due",
    ),
    Mutant(
        "clock that is set back",
        "service/pacs/delivery.py",
        "        await self._mind_the_clock()\n",
        "",
        "tests/pacs/test_delivery.py::test_a_clock_that_is_set_back_holds_up_no_result",
    ),
    Mutant(
        "result that cannot be read for now",
        "service/pacs/delivery.py",
        "            isinstance(error, FileNotFoundError)\n",
        "            True\n",
        "tests/pacs/test_delivery.py::test_a_result_that_cannot_be_read_for_now_is_delivered_later",
    ),
    Mutant(
        "spool whose disk stalls, and who asks what was given up",
        "service/pacs/gateway.py",
        "            async with asyncio.timeout(STALL_SECONDS):\n                return",
        "            async with asyncio.timeout(None):\n                return",
        f"{STALLS}::test_what_was_given_up_is_not_waited_for_as_long_as_a_disk_stalls",
    ),
    Mutant(
        "spool whose disk stalls",
        "service/routes/dicomweb.py",
        "run = gateway.threads.run",
        "run = asyncio.to_thread",
        f"{STALLS}::test_a_disk_that_stalls_holds_up_what_a_pacs_sends_and_nobody_else",
    ),
    Mutant(
        "request that is cut off while a disk stalls",
        "service/routes/dicomweb.py",
        "        gateway.threads.submit(receiver.abandon)",
        "        await run(receiver.abandon)",
        f"{STALLS}::test_a_request_that_is_cut_off_does_not_wait_for_a_disk_that_stalls",
    ),
    Mutant(
        "end of the process while a disk stalls",
        "service/pacs/threads.py",
        "daemon=True",
        "daemon=False",
        f"{STALLS}::test_it_ends_while_the_disk_stalls",
    ),
    Mutant(
        "health while the spool cannot be read",
        "service/pacs/gateway.py",
        "except (OSError, sqlite3.Error, SpoolFull) as error:",
        "except KeyError as error:",
        f"{SPOOL_TESTS}::test_health_and_metrics_are_answered_while_the_spool_cannot_be_read",
    ),
    Mutant(
        "results while the disk takes nothing",
        "service/pacs/notes.py",
        "            self._held.update((parcel.number, end) for parcel in parcels)\n",
        "",
        f"{SPOOL_TESTS}::test_on_a_disk_that_takes_nothing_each_result_is_settled_once[delivered]",
    ),
    Mutant(
        "series while the disk fails",
        "service/pacs/analysis.py",
        "        except SpoolFull:\n            raise\n        except Unre",
        "        except Unre",
        f"{SPOOL_TESTS}::test_a_disk_that_fails_for_a_while_sets_no_series_aside[reading]",
    ),
    Mutant(
        "series on a bad sector",
        "service/pacs/segments.py",
        "if error.errno not in _OF_THE_MACHINE and self._is_well():",
        "if False:",
        f"{SPOOL_TESTS}::test_a_series_on_a_bad_sector_is_set_aside",
    ),
    Mutant(
        "disk that fails as a whole",
        "service/pacs/segments.py",
        "if error.errno not in _OF_THE_MACHINE and self._is_well():",
        "if True:",
        f"{SPOOL_TESTS}::test_a_disk_that_fails_for_a_while_sets_no_series_aside[reading-EIO]",
    ),
    Mutant(
        "start with a damaged ledger",
        "service/pacs/gateway.py",
        "        except (sqlite3.Error, SpoolFull) as error:\n            self._segments",
        "        except KeyError as error:\n            self._segments",
        f"{SPOOL_TESTS}::test_a_ledger_with_a_damaged_page_keeps_nobody_from_predicting",
    ),
    Mutant(
        "new ledger beside files of an old one",
        "service/pacs/ledger.py",
        "    if version == 0 and _has_segments(path.with_name(FOLDER)):\n",
        "    if False:\n",
        "tests/pacs/test_spool.py"
        "::test_a_new_ledger_beside_files_of_an_old_one_is_refused_and_they_stay",
    ),
    Mutant(
        "spool that takes long to count",
        "service/pacs/gateway.py",
        "min(2 * self._counts.seconds, STALL_SECONDS)",
        "0.0",
        f"{STALLS}::test_a_spool_that_takes_long_to_count_is_no_stalling_disk",
    ),
    Mutant(
        "request that breaks off on a bad disk",
        "service/pacs/segments.py",
        "        with suppress(OSError):\n            self._file.close()\n",
        "        self._file.close()\n",
        f"{RECEIVER}"
        "::test_a_request_that_breaks_off_on_a_bad_disk_holds_up_its_series_no_longer[close]",
    ),
    Mutant(
        "answer of the PACS without end",
        "service/pacs/destination.py",
        "if len(received) > MAX_ANSWER_BYTES:",
        "if False:",
        "tests/pacs/test_destination.py::test_of_an_answer_without_end_only_so_much_is_read[200]",
    ),
    Mutant(
        "answer of the PACS that drips",
        "service/pacs/destination.py",
        "seconds = 2 * self._silent_seconds",
        "seconds = 3600.0",
        "tests/pacs/test_destination.py::test_an_answer_that_drips_is_not_waited_for",
    ),
    Mutant(
        "slow link to the PACS",
        "service/pacs/destination.py",
        "        limit.reschedule(asyncio.get_running_loop().time() + seconds)\n",
        "",
        "tests/pacs/test_destination.py::test_a_slow_link_is_not_cut_off",
    ),
    Mutant(
        "large instance that is read as a whole",
        "service/pacs/receiver.py",
        "head = self._segment.read(self._start, HEAD_BYTES)",
        "head = self._segment.read(self._start, 10**9)",
        "tests/pacs/test_receiver.py::test_of_a_large_instance_only_the_beginning_is_read",
    ),
)
