"""Handlings of the contract: decoders, stores and series."""

from typing import Final

from scripts.handlings.mutant import Mutant

SANDBOX: Final = "contract/sandbox.py"
SANDBOX_TESTS: Final = "tests/contract/test_sandbox.py"

PERMISSIONS: Final = "tests/contract/test_store_permissions.py"

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
        "call without a process to be had",
        "contract/zygote.py",
        "                except (OSError, MemoryError):\n",
        "                except KeyError:\n",
        f"{SANDBOX_TESTS}::test_no_process_to_be_had_for_a_call",
    ),
    Mutant(
        "limit of memory that is smaller already",
        "contract/zygote.py",
        "        size = min(size, hard)\n",
        "        pass\n",
        f"{SANDBOX_TESTS}::test_a_limit_of_memory_that_is_smaller_already_stays",
    ),
    Mutant(
        "decoder that an image has taken over",
        "contract/zygote.py",
        "    for needless in _NEEDS_NONE:\n",
        "    for needless in ():\n",
        f"{SANDBOX_TESTS}::test_it_opens_and_starts_nothing",
    ),
    Mutant(
        "staged version of an export that was killed",
        "contract/store.py",
        "                if is_locked:\n",
        "                if False:\n",
        "tests/contract/test_store_publish.py"
        "::TestStaging::test_what_a_killed_export_left_is_removed_by_the_next",
    ),
    Mutant(
        "damaged version",
        "contract/version.py",
        "        if not same:",
        "        if False:",
        "tests/service/test_models.py::test_a_version_that_must_not_serve_leaves_the_old_one",
    ),
    Mutant(
        "publish killed, half a version",
        "contract/store.py",
        "            staged.rename(target)",
        "            shutil.copytree(staged, target)",
        "tests/contract/test_store_publish.py::TestPublish::"
        "test_a_publish_killed_anywhere_leaves_all_or_nothing",
    ),
    Mutant(
        "position that is the same in all slices",
        "contract/series.py",
        "if len(gathered) == 1:",
        "if False:",
        "tests/contract/test_series.py::test_one_position_stated_by_all_is_as_good_as_none",
    ),
    Mutant(
        "more pixels than an object states",
        "contract/dicom_pixels.py",
        "if surplus > max(form.frame_bytes // form.rows, 1):",
        "if False:",
        "tests/contract/test_dicom_refused.py::TestRefused::test_more_values_than_pixels",
    ),
    Mutant(
        "object of elements without end",
        "contract/dicom_size.py",
        "        if self._elements > MAX_ELEMENTS:",
        "        if False:",
        "tests/contract/test_dicom_refused.py::TestBombs::test_elements_without_end_in_a_sequence",
    ),
    Mutant(
        "modality and part written together",
        "contract/dicom_kind.py",
        "found[1] if (found := _PART.fullmatch(word)) else word for",
        "word for",
        "tests/contract/test_dicom_kind.py::test_spellings_of_a_head",
    ),
    Mutant(
        "object of another series that is refused by its header",
        "contract/dicom.py",
        "            error.dicom = reference(dataset, 1)\n",
        "            pass\n",
        "tests/service/test_series.py"
        "::test_what_is_refused_by_its_header_is_missing_in_its_own_series_alone",
    ),
    Mutant(
        "picture in colour",
        "contract/answer.py",
        "        if coloured is not None:\n",
        "        if False:\n",
        "tests/service/test_answers.py::test_a_picture_in_colour_is_referred",
    ),
    Mutant(
        "colours of a JPEG that is longer than any slice",
        "contract/decoding.py",
        "            coloured = _has_colours(_smaller(data, mode, least))\n",
        "",
        "tests/contract/test_colour.py"
        "::test_a_jpeg_that_is_too_long_for_its_colours_is_looked_at_at_a_smaller_scale",
    ),
    Mutant(
        "JPEG whose components are RGB by name",
        "contract/codestream.py",
        'return stream[start + 6 : start + 15 : 3] != b"RGB"',
        "return True",
        "tests/contract/test_colour.py::test_components_that_only_have_names",
    ),
    Mutant(
        "colours that are drawn over a slice",
        "contract/greyscale.py",
        "    if tints.coloured:",
        "    if False:",
        "tests/contract/test_dicom_pixels.py::TestColour::test_what_is_drawn_in_colour_is_refused",
    ),
    Mutant(
        "model file that changes once it is loaded",
        "contract/sealing.py",
        "        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)",
        "        pass",
        "tests/contract/test_sealing.py::test_nobody_can_change_it",
    ),
    Mutant(
        "version that may not be looked into",
        "contract/store.py",
        "            with suppress(PermissionError):\n                if (self",
        "            with suppress(ZeroDivisionError):\n                if (self",
        f"{PERMISSIONS}::test_a_version_that_may_not_be_looked_into_is_passed_over",
    ),
    Mutant(
        "version whose permissions are mended",
        "contract/store.py",
        "\\0{status.st_ctime_ns}",
        "",
        f"{PERMISSIONS}::test_a_stamp_changes_with_permissions[manifest.json]",
    ),
    Mutant(
        "export under a private umask",
        "contract/store.py",
        "            make_readable(path)\n            sync(path)",
        "            sync(path)",
        f"{PERMISSIONS}::test_what_is_published_everybody_may_read",
    ),
    Mutant(
        "element that lists millions of values",
        "contract/dicom_size.py",
        "if length > MAX_VALUE_BYTES // 2 * value_bytes:",
        "if False:",
        "tests/contract/test_dicom_size.py::TestValues::test_an_element_is_not_longer_than_a_table",
    ),
    Mutant(
        "many elements that list thousands of values",
        "contract/dicom_size.py",
        "if self._values > MAX_VALUES:",
        "if False:",
        "tests/contract/test_dicom_size.py::TestValues::test_nor_are_there_more_values_in_many",
    ),
)
