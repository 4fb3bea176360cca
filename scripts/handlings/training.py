"""Handlings of training."""

from typing import Final

from scripts.handlings.mutant import Mutant

SCORES_TESTS: Final = "tests/training/test_scores.py"
TRUST_TESTS: Final = "tests/training/test_trust.py"

MUTANTS: Final = (
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
        "data given in another order to a run that goes on",
        "training/prepare.py",
        "    return sorted(roots, key=lambda root: names.index(given(root).name))\n",
        "    return [*roots]\n",
        "tests/training/test_prepare.py"
        "::test_a_run_goes_on_with_its_data_in_the_order_that_it_began_with",
    ),
    Mutant(
        "masks in a folder of another name",
        "training/index.py",
        "    passed_over += _other_folders(root)\n",
        "",
        "tests/training/test_index.py::test_masks_in_a_folder_of_another_name_are_seen_to_be_none",
    ),
    Mutant(
        "images that no part takes for their labels",
        "training/splits.py",
        "    if conflicting:\n",
        "    if False:\n",
        "tests/training/test_splits.py::test_what_has_conflicting_labels_neither_trains_nor_validates",
    ),
    Mutant(
        "share of none or all",
        "training/interval.py",
        "if basis.share:",
        "if False:",
        f"{SCORES_TESTS}::test_a_share_of_none_or_all_has_limits_all_the_same",
    ),
    Mutant(
        "interval of too few groups",
        "training/interval.py",
        "if count < MIN_GROUPS or not np.isfinite(whole):",
        "if not np.isfinite(whole):",
        f"{SCORES_TESTS}::test_fewer_than_five_groups_have_no_interval",
    ),
    Mutant(
        "threshold that serves in the card's figures",
        "training/evaluate.py",
        "                recipe.tumor_threshold,\n",
        "                0.5,\n",
        f"{TRUST_TESTS}::test_tumour_figures_are_of_the_threshold_that_serves",
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
        "training/excerpt.py",
        "tumor = tumor_of_test(found)\n",
        'tumor = tumor_of_test({**found, "answers": None})\n',
        "tests/training/test_entries.py"
        "::test_of_a_set_that_was_left_out_the_record_has_what_the_set_can_show",
    ),
    Mutant(
        "title that is cut off",
        "training/plots.py",
        'ylabel="truth", title=_title(title))',
        'ylabel="truth", title=_plain(title))',
        "tests/training/test_plots.py::test_long_titles_are_not_cut_off",
    ),
)
