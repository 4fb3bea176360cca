"""Outputs to answers: numbers worked out by hand, and what must hold whatever the outputs are."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.answer import Decision, Outputs, Rules, mask_logit
from contract.errors import CorruptVersion, IncompleteVersion
from contract.manifest import TumorEvidence
from contract.region import RegionSource
from contract.space import EmbeddingSpace
from contract.store import ModelStore
from tests.contract.versions import (
    NAME,
    SPACE_ARRAYS,
    answer_fields,
    manifest_fields,
    npz,
    publish,
)

many = settings(max_examples=100, deadline=None, derandomize=True, database=None)

PLAIN = Rules(
    classes=("glioma", "meningioma", "notumor", "pituitary"),
    tumor_classes=("glioma", "meningioma", "pituitary"),
    tumor_threshold=0.5,
)
WEIGHTS = [4.0, 2.0, 2.0, 2.0]
"""Class weights: softmax 0.4, 0.2, 0.2, 0.2; three tumour classes with 8 to the one with 2."""

SPACE = EmbeddingSpace(
    np.array([[0, 0], [10, 0]], np.float32), np.array([[1, 0], [0, 0.5]], np.float32)
)


def floats(*values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def outputs(temperature: float = 1.0, peak: float = 0.8, **changes: Any) -> Outputs:
    """One slice: logits whose softmax at a temperature has :data:`WEIGHTS`, a mask of which four cells
    have ``peak`` on average, and an embedding at (3, 8)."""
    mask = np.zeros((1, 4, 4), np.float32)
    mask[0, 1:3, 1:3] = [[peak, peak], [peak - 0.1, peak + 0.1]]
    given: dict[str, Any] = {
        "probabilities": floats([0.25, 0.25, 0.25, 0.25]),
        "logits": floats([temperature * math.log(weight) for weight in WEIGHTS]),
        "mask": mask,
        "embedding": floats([3, 8]),
    }
    return Outputs(**{**given, **changes})


class TestProbabilities:
    def test_without_a_record_they_are_the_model_s_own(self) -> None:
        answers = PLAIN.answer(Outputs(floats([0.125, 0.25, 0.5, 0.125], [0.5, 0.25, 0, 0.25])))
        np.testing.assert_array_equal(
            answers.probabilities, [[0.125, 0.25, 0.5, 0.125], [0.5, 0.25, 0, 0.25]]
        )
        np.testing.assert_array_equal(answers.tumor_probability, [0.5, 1])
        np.testing.assert_array_equal(answers.labels, [2, 0])
        assert answers.decisions == (Decision.TUMOR, Decision.TUMOR)
        assert answers.prediction_set is None
        assert answers.distance is None
        assert answers.in_distribution is None

    @pytest.mark.parametrize(
        ("classes", "threshold", "label"),
        [
            pytest.param(("notumor", "tumor"), 0.5, "tumor", id="a tumour"),
            pytest.param(("tumor", "notumor"), 0.5, "tumor", id="a tumour that comes first"),
            pytest.param(("notumor", "tumor"), 0.6, "notumor", id="none"),
            pytest.param(("tumor", "notumor"), 0.6, "notumor", id="none that comes last"),
        ],
    )
    def test_of_equally_probable_classes_the_label_is_what_is_decided(
        self, classes: tuple[str, str], threshold: float, label: str
    ) -> None:
        rules = Rules(classes, ("tumor",), threshold, set_threshold=0.9)
        # As a sigmoid's, to float32: equal once they are rounded.
        for pair in ([0.5, 0.5], [0.50000006, 0.49999997]):
            answers = rules.answer(Outputs(floats(pair, [0.25, 0.75])))
            assert [classes[index] for index in answers.labels] == [label, classes[1]]
            assert answers.prediction_set is not None
            assert answers.prediction_set[0].tolist() == [name == label for name in classes]

    def test_a_tie_that_is_referred_or_on_one_side_has_the_first_label(self) -> None:
        rules = Rules(("notumor", "tumor"), ("tumor",), 0.5, refer_band=(0.4, 0.6))
        assert rules.answer(Outputs(floats([0.5, 0.5]))).labels.tolist() == [0]
        answers = PLAIN.answer(Outputs(floats([0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1])))
        assert answers.labels.tolist() == [0, 1]
        hard = replace(PLAIN, tumor_threshold=0.95)
        assert hard.answer(Outputs(floats([0.4, 0.4, 0.1, 0.1]))).labels.tolist() == [0]

    def test_int8_probabilities_that_add_up_to_more_than_1_are_no_more_than_certain(self) -> None:
        answers = PLAIN.answer(Outputs(floats([0.996094, 0.003906, 0, 0.003906])))
        assert answers.tumor_probability.tolist() == [1]

    @pytest.mark.parametrize("temperature", [0.5, 1, 2])
    def test_temperature_divides_the_logits(self, temperature: float) -> None:
        answers = replace(PLAIN, temperature=temperature).answer(outputs(temperature))
        assert answers.probabilities[0].tolist() == [0.4, 0.2, 0.2, 0.2]
        assert answers.tumor_probability.tolist() == [0.8]

    def test_a_high_temperature_makes_them_alike(self) -> None:
        """At 2, weights of 4 and 2 count as 2 and sqrt 2."""
        answers = replace(PLAIN, temperature=2.0).answer(outputs(1.0))
        total = 2 + 3 * math.sqrt(2)
        np.testing.assert_allclose(
            answers.probabilities[0], [2 / total] + 3 * [math.sqrt(2) / total], atol=1e-6
        )

    @pytest.mark.parametrize(
        ("bias", "class_weight", "mask_weight", "expected"),
        [
            # L_class is ln 4, as the tumour classes have four times the weight; L_mask is ln 4, as the
            # four highest cells have 0.8 on average.
            pytest.param(0, 1, 0, [0.4, 0.2, 0.2, 0.2], id="class head alone: the softmax"),
            pytest.param(0, 0, 1, [0.4, 0.2, 0.2, 0.2], id="mask alone: 0.8"),
            pytest.param(0, 0.5, 0.5, [0.4, 0.2, 0.2, 0.2], id="half of each"),
            pytest.param(-math.log(4), 0.5, 0.5, [0.25, 0.125, 0.5, 0.125], id="evens"),
            pytest.param(-math.log(16), 1, 0, [0.1, 0.05, 0.8, 0.05], id="against it"),
            pytest.param(0, 1, 1, [8 / 17, 4 / 17, 1 / 17, 4 / 17], id="both: 16 to 1"),
        ],
    )
    def test_class_head_and_mask_are_weighed(
        self, bias: float, class_weight: float, mask_weight: float, expected: list[float]
    ) -> None:
        evidence = TumorEvidence(
            mask_cells=4, bias=bias, class_weight=class_weight, mask_weight=mask_weight
        )
        rules = replace(PLAIN, temperature=2.0, tumor=evidence)
        answers = rules.answer(outputs(2.0))
        np.testing.assert_allclose(answers.probabilities[0], expected, atol=1e-6)
        assert answers.tumor_probability[0] == pytest.approx(1 - expected[2], abs=2e-6)

    def test_the_mask_s_logit_is_bounded(self) -> None:
        mask = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
        bound = math.log(0.9999 / 0.0001)
        np.testing.assert_allclose(mask_logit(mask, 4), [-bound, bound])

    def test_every_cell_may_be_averaged(self) -> None:
        mask = np.full((1, 2, 2), 0.75, np.float32)
        np.testing.assert_allclose(mask_logit(mask, 4), [math.log(3)])

    def test_extreme_logits_stay_finite(self) -> None:
        evidence = TumorEvidence(mask_cells=1, bias=0, class_weight=9, mask_weight=9)
        rules = replace(PLAIN, temperature=0.01, tumor=evidence)
        logits = floats([300, -300, -300, -300], [-300, -300, 300, -300])
        answers = rules.answer(
            outputs(logits=logits, mask=np.zeros((2, 4, 4), np.float32), embedding=None)
        )
        np.testing.assert_allclose(answers.probabilities, [[1, 0, 0, 0], [0, 0, 1, 0]])

    @pytest.mark.parametrize("missing", ["logits", "mask", "embedding"])
    def test_an_output_that_is_needed_and_missing_is_an_error(self, missing: str) -> None:
        evidence = TumorEvidence(mask_cells=4, bias=0, class_weight=1, mask_weight=1)
        rules = replace(PLAIN, temperature=1.0, tumor=evidence, space=SPACE, ood_threshold=5.0)
        changes: dict[str, Any] = {missing: None}
        with pytest.raises(ValueError, match=missing):
            rules.answer(replace(outputs(), **changes))

    @many
    @given(
        st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4),
        st.floats(0.1, 10),
        st.floats(-5, 5),
        st.integers(0, 2**32 - 1),
    )
    def test_they_are_a_distribution_that_agrees_with_tumor_probability(
        self, logits: list[float], temperature: float, weight: float, seed: int
    ) -> None:
        evidence = TumorEvidence(mask_cells=3, bias=1, class_weight=weight, mask_weight=1 - weight)
        rules = replace(PLAIN, temperature=temperature, tumor=evidence)
        mask = np.random.default_rng(seed).random((1, 4, 4), np.float32)
        answers = rules.answer(outputs(logits=floats(logits), mask=mask))
        assert answers.probabilities.min() >= 0
        assert answers.probabilities.sum() == pytest.approx(1, abs=3e-6)
        assert answers.probabilities[0, 2] == pytest.approx(
            1 - answers.tumor_probability[0], abs=3e-6
        )


class TestPredictionSet:
    @pytest.mark.parametrize(
        ("threshold", "expected"),
        [
            pytest.param(0.0, [True, True, True, True], id="all"),
            pytest.param(0.2, [True, True, True, True], id="as probable as the threshold"),
            pytest.param(0.3, [True, False, False, False], id="one"),
            pytest.param(0.9, [True, False, False, False], id="none is, so the most probable"),
        ],
    )
    def test_it_has_what_is_probable_enough(self, threshold: float, expected: list[bool]) -> None:
        rules = replace(PLAIN, temperature=1.0, set_threshold=threshold)
        chosen = rules.answer(outputs()).prediction_set
        assert chosen is not None
        assert chosen.tolist() == [expected]


class TestDistribution:
    @pytest.mark.parametrize(("threshold", "familiar"), [(5.0, True), (4.9999, False)])
    def test_a_slice_is_in_distribution_up_to_the_threshold(
        self, threshold: float, familiar: bool
    ) -> None:
        rules = replace(PLAIN, space=SPACE, ood_threshold=threshold)
        answers = rules.answer(outputs())
        assert answers.in_distribution is not None
        assert answers.in_distribution.tolist() == [familiar]
        assert (answers.decisions == (Decision.REFER,)) is not familiar

    @pytest.mark.parametrize(("threshold", "chosen"), [(5.0001, 1), (4.9999, 4)])
    def test_beyond_it_any_class_may_be_true(self, threshold: float, chosen: int) -> None:
        rules = replace(
            PLAIN, temperature=1.0, set_threshold=0.9, space=SPACE, ood_threshold=threshold
        )
        found = rules.answer(outputs()).prediction_set
        assert found is not None
        assert found.sum() == chosen

    def test_an_embedding_that_is_no_number_is_out_of_distribution(self) -> None:
        rules = replace(PLAIN, space=SPACE, ood_threshold=100.0)
        answers = rules.answer(outputs(embedding=floats([math.nan, 0])))
        assert answers.decisions == (Decision.REFER,)


class TestDecision:
    @pytest.mark.parametrize(
        ("probability", "decision"),
        [
            (0.0, "no_tumor"),
            (0.2499, "no_tumor"),
            (0.25, "refer"),
            (0.4999, "refer"),
            (0.5, "tumor"),
            (1.0, "tumor"),
        ],
    )
    def test_the_band_is_referred_without_its_upper_end(
        self, probability: float, decision: str
    ) -> None:
        rules = replace(PLAIN, tumor_threshold=0.4, refer_band=(0.25, 0.5))
        answers = rules.answer(Outputs(floats([probability, 0, 1 - probability, 0])))
        assert answers.decisions == (Decision(decision),)

    def test_an_empty_band_refers_nothing(self) -> None:
        rules = replace(PLAIN, refer_band=(0.5, 0.5))
        answers = rules.answer(Outputs(floats([0.5, 0, 0.5, 0])))
        assert answers.decisions == (Decision.TUMOR,)

    def test_it_is_made_on_the_number_that_is_shown(self) -> None:
        """A client that compares the answer's numbers must come to the answer's decision."""
        answers = PLAIN.answer(Outputs(floats([0.49999967, 0, 0.5, 0])))
        assert answers.tumor_probability.tolist() == [0.5]
        assert answers.decisions == (Decision.TUMOR,)


class TestCells:
    MAPS = np.array(
        # Of four classes in two cells, side by side.
        [[[[9.0, 4.0, 99.0, 1.0], [1.0, -2.0, 9.0, 1.0]]]],
        np.float32,
    )

    def test_they_are_those_of_the_most_probable_tumour_even_where_it_is_not_the_label(
        self,
    ) -> None:
        rules = replace(PLAIN, region_source=RegionSource.CAM)
        given = outputs(probabilities=floats([0.1, 0.3, 0.5, 0.1]), cam=self.MAPS)
        found = rules.cells(given)
        assert found is not None
        assert found.tolist() == [[1.0, 0.0]], "of the second class; what speaks against it is none"

    def test_what_speaks_for_nothing_is_nothing(self) -> None:
        rules = replace(PLAIN, region_source=RegionSource.CAM)
        found = rules.cells(outputs(cam=-np.abs(self.MAPS)))
        assert found is not None
        assert found.tolist() == [[0.0, 0.0]]

    def test_a_mask_goes_before_maps(self) -> None:
        given = outputs(cam=self.MAPS)
        found = PLAIN.cells(given)
        assert given.mask is not None
        assert found is not None
        np.testing.assert_array_equal(found, given.mask[0])


def test_slices_of_a_batch_are_answered_as_if_alone() -> None:
    random = np.random.default_rng(1)
    evidence = TumorEvidence(mask_cells=5, bias=-2, class_weight=0.7, mask_weight=0.6)
    rules = replace(
        PLAIN,
        temperature=1.7,
        tumor=evidence,
        set_threshold=0.2,
        refer_band=(0.3, 0.6),
        space=SPACE,
        ood_threshold=8.0,
    )
    batch = Outputs(
        random.random((9, 4), np.float32),
        random.normal(size=(9, 4)).astype(np.float32),
        random.random((9, 6, 6), np.float32),
        random.normal(5, 5, size=(9, 2)).astype(np.float32),
    )
    together = rules.answer(batch)
    assert len(set(together.decisions)) > 1
    distances = together.distance
    assert distances is not None
    for index in range(len(batch)):
        alone = rules.answer(batch.at(index))
        assert alone.decisions == (together.decisions[index],)
        for name in ("probabilities", "tumor_probability", "prediction_set", "in_distribution"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[index])
        assert alone.distance is not None
        assert alone.distance[0] == pytest.approx(distances[index], rel=1e-5)


class TestFiles:
    def test_a_version_s_records_become_rules(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path)
        publish(store, files={"ood.npz": npz(**SPACE_ARRAYS)}, **answer_fields(features=3))
        stored = store.load(NAME, 1)
        rules = Rules.read(stored)
        record = stored.manifest.answer
        assert record is not None
        assert record.ood is not None
        assert rules.classes == stored.manifest.classes
        assert rules.temperature == record.temperature
        assert rules.tumor == record.tumor
        assert rules.set_threshold == 0.1
        assert rules.refer_band == (0.3, 0.6)
        assert rules.region == record.region
        assert rules.ood_threshold == record.ood.threshold
        assert rules.space is not None
        assert rules.space.features == 3

    def test_a_version_without_records_has_none(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path)
        publish(store)
        assert Rules.read(store.load(NAME, 1)) == PLAIN

    @pytest.mark.parametrize("mask", [False, True])
    def test_activation_maps_give_regions_where_there_is_no_mask(
        self, tmp_path: Path, mask: bool
    ) -> None:
        """From the probability on that makes the slice a tumour."""
        outputs = manifest_fields()["outputs"]
        outputs["cam"] = {"dtype": "float32", "shape": [None, 7, 7, 4]}
        if mask:
            outputs["mask"] = {"dtype": "float32", "shape": [None, 8, 8]}
        store = ModelStore(tmp_path)
        publish(store, outputs=outputs, tumor_threshold=0.3)
        rules = Rules.read(store.load(NAME, 1))
        assert rules.region_source is (RegionSource.MASK if mask else RegionSource.CAM)
        least = None if rules.region is None else rules.region.min_tumor_probability
        assert least == (None if mask else 0.3)

    def test_embeddings_of_another_model_are_refused(self, tmp_path: Path) -> None:
        store = ModelStore(tmp_path)
        publish(store, files={"ood.npz": npz(**SPACE_ARRAYS)}, **answer_fields(features=5))
        stored = store.load(NAME, 1)
        with pytest.raises(CorruptVersion, match="not of this model"):
            Rules.read(stored)

    def test_a_version_without_its_file_is_incomplete(self, tmp_path: Path) -> None:
        with pytest.raises(IncompleteVersion, match=r"ood\.npz"):
            publish(ModelStore(tmp_path), **answer_fields(features=3))
