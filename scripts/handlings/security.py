"""Handlings of what a stranger may try: who may do what, and how large what is sent may be."""

from typing import Final

from scripts.handlings.mutant import Mutant

ACCESS: Final = "tests/service/test_access.py"
HEADERS: Final = "tests/service/test_headers.py"
OPERATIONS: Final = "tests/service/test_operations.py::test_a_saved_model_computes_and_does_no_more"
ARCHIVES: Final = "tests/service/test_archives.py"
UPLOADS: Final = "tests/service/test_uploads.py"
UPLOADED: Final = "service/uploads.py"
UNPACKING: Final = "service/archives.py"
DECODING: Final = "contract/decoding.py"

MUTANTS: Final = (
    Mutant(
        "start without keys for the whole network",
        "service/consistency.py",
        "if not guarded and not _is_loopback(settings.host):",
        "if False:",
        f"{ACCESS}::test_another_address_needs_keys_or_a_word",
    ),
    Mutant(
        "key that is for something else",
        "service/access.py",
        "if role not in key.roles:",
        "if False:",
        f"{ACCESS}::test_roles_do_not_include_each_other",
    ),
    Mutant(
        "key in a comment, behind what is no new line",
        "service/keys.py",
        'text.split("\\n")',
        "text.splitlines()",
        f"{ACCESS}::test_a_key_behind_a_comment_is_none",
    ),
    Mutant(
        "page of another site, without keys",
        "service/access.py",
        "    if is_other:\n",
        "    if False:\n",
        f"{ACCESS}::test_without_keys_no_page_of_another_site_may_do_anything",
    ),
    Mutant(
        "answer that a browser takes for something else",
        "service/headers.py",
        '    (b"x-content-type-options", b"nosniff"),\n',
        "",
        f"{HEADERS}::test_every_answer_is_protected",
    ),
    Mutant(
        "answer that a cache would keep",
        "service/headers.py",
        "REVALIDATED if path.startswith(STATIC) else UNSTORED",
        "REVALIDATED",
        f"{HEADERS}::test_predictions_and_refusals_are_kept_by_no_cache",
    ),
    Mutant(
        "body that says that it is too large",
        UPLOADED,
        "if declared.isdecimal() and int(declared) > max_body_bytes:",
        "if False:",
        f"{UPLOADS}::test_what_says_it_is_too_large_is_refused_before_it_comes",
    ),
    Mutant(
        "length of a body with zeros without end before it",
        UPLOADED,
        '.lstrip("0")',
        "",
        f"{UPLOADS}::test_the_zeros_before_a_length_are_no_failure_of_the_service",
    ),
    Mutant(
        "body that is too large and does not say so",
        UPLOADED,
        "        if size > max_body_bytes:",
        "        if False:",
        f"{UPLOADS}::test_body_without_a_length_is_counted_as_it_comes",
    ),
    Mutant(
        "too many files in a form",
        UPLOADED,
        "if len(self.files) == self._max_files:",
        "if False:",
        f"{UPLOADS}::test_bad_body_is_refused",
    ),
    Mutant(
        "headers without end in a part of a form",
        UPLOADED,
        "max_header_count=MAX_PART_HEADERS",
        "max_header_count=10**9",
        f"{UPLOADS}::test_a_part_may_have_many_headers_and_no_more",
    ),
    Mutant(
        "zip file that unpacks to a multiple of its size",
        UNPACKING,
        "if opened.size > max(FREE_BYTES, MAX_RATIO * len(upload.data)):",
        "if False:",
        f"{ARCHIVES}::test_unusable_zip_is_refused",
    ),
    Mutant(
        "zip file that unpacks to more than it states",
        UNPACKING,
        "file.read(member.file_size + 1)",
        "file.read()",
        f"{ARCHIVES}::test_no_more_is_unpacked_than_is_stated",
    ),
    Mutant(
        "zip file whose directory has fields without end",
        UNPACKING,
        "if self.most is not None and size is not None and size > self.most:",
        "if False:",
        f"{ARCHIVES}::test_directory_is_measured_before_it_is_read",
    ),
    Mutant(
        "picture of too many pixels",
        DECODING,
        "if columns * rows > accepted:",
        "if False:",
        "tests/contract/test_decoding.py::TestBombs::test_the_limit_is_exact",
    ),
    Mutant(
        "picture with a side that is too long",
        DECODING,
        "if max(columns, rows) > MAX_SIDE:",
        "if False:",
        "tests/contract/test_metadata.py::test_a_side_that_no_other_format_can_have",
    ),
    Mutant(
        "picture of 16 bits in colour",
        DECODING,
        "coloured = deep.coloured",
        "coloured = False",
        "tests/contract/test_colour.py::test_png_of_sixteen_bits",
    ),
    Mutant(
        "dim picture in colour",
        "contract/colour.py",
        "min(MAX_TINT * unit, MAX_TINT_SHARE * high)",
        "MAX_TINT * unit",
        "tests/contract/test_colour.py::test_a_dim_picture_is_measured_by_its_own_brightness",
    ),
    Mutant(
        "JPEG of scans without end",
        DECODING,
        "if has_more_scans(data, max_scans(columns * rows, max_pixels)):",
        "if False:",
        "tests/contract/test_scans.py::test_as_many_as_the_limit_are_read",
    ),
    Mutant(
        "too many STOW-RS requests at a time",
        "service/places.py",
        "self._taken.total() >= self._places or",
        "",
        "tests/pacs/test_intake.py"
        "::test_only_so_many_bodies_are_under_way_and_half_of_them_of_one_client",
    ),
    Mutant(
        "too many STOW-RS requests of one client",
        "service/places.py",
        " or self._taken[client] >= self._share",
        "",
        "tests/pacs/test_intake.py"
        "::test_only_so_many_bodies_are_under_way_and_half_of_them_of_one_client",
    ),
    Mutant(
        "SavedModel that reads and writes files",
        "service/runtimes/operations.py",
        "if others and not (others <= CHECKPOINT and _is_out_of_reach(function, graph)):",
        "if False:",
        f"{OPERATIONS}[writes]",
    ),
    Mutant(
        "SavedModel that writes a checkpoint",
        "service/runtimes/operations.py",
        "others <= CHECKPOINT and _is_out_of_reach(function, graph)",
        "others <= CHECKPOINT",
        f"{OPERATIONS}[saves]",
    ),
    Mutant(
        "SavedModel that calls what writes a checkpoint",
        "service/runtimes/operations.py",
        "(graph.object_graph_def, *callers)",
        "(graph.object_graph_def,)",
        f"{OPERATIONS}[saves in a function]",
    ),
    Mutant(
        "SavedModel that keeps what it has seen",
        "service/runtimes/operations.py",
        "    Case DisableCopyOnRead",
        "    AssignVariableOp Case DisableCopyOnRead",
        f"{OPERATIONS}[keeps what it has seen]",
    ),
    Mutant(
        "SavedModel that names another one's function in a branch",
        "service/runtimes/operations.py",
        "(value.func, *value.list.func)",
        "(value.func,)",
        f"{OPERATIONS}[branch with a name]",
    ),
    Mutant(
        "SavedModel that calls another one's function",
        "service/runtimes/operations.py",
        "called.name in names and not called.attr",
        "not called.attr",
        f"{OPERATIONS}[call of another's function]",
    ),
    Mutant(
        "SavedModel of two graphs",
        "service/runtimes/operations.py",
        "len(saved.meta_graphs) != 1 or ",
        "",
        f"{OPERATIONS}[of two graphs]",
    ),
    Mutant(
        "GPU that is asked for and not there",
        "service/runtimes/tensorflow.py",
        "if device is Device.GPU and not gpus:",
        "if False:",
        "tests/service/test_runtimes.py::test_settings_of_tensorflow",
    ),
)
