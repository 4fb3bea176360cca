"""Pictures that are not a model's business, and whether it says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from contract.answer import Decision, Rules
from contract.decoding import decode
from contract.errors import DecodeError
from contract.preprocessing import preprocess_placed
from training.answering import as_outputs
from training.convert import Predictor
from training.errors import DatasetError
from training.trust import Tested

CONFIDENT: Final = 0.9
"""A tumour probability above which an answer about a picture that is no brain MRI is a scandal."""


def foreign_pictures(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Pictures that are no brain MRI, preprocessed, uint8 (N, H, W), by kind.

    Args:
        folder: a folder of pictures for each kind; see ``scripts/foreign.py``.

    Raises:
        DatasetError: there is no kind, one has no pictures, or a file is none.
    """
    kinds = {}
    for kind in sorted(path for path in folder.glob("*") if path.is_dir()):
        pictures = []
        for path in sorted(kind.glob("[!.]*")):
            try:
                pictures.append(preprocess_placed(decode(path.read_bytes()).upright)[0])
            except (OSError, DecodeError) as error:
                raise DatasetError(f"{path} is no picture: {error}") from error
        if not pictures:
            raise DatasetError(f"{kind} holds no pictures")
        kinds[kind.name] = np.stack(pictures)
    if not kinds:
        raise DatasetError(f"{folder} holds no folders of pictures")
    return kinds


def foreign_figures(
    pictures: Mapping[str, NDArray[np.uint8]],
    test: Tested,
    slices: NDArray[np.uint8],
    rules: Rules,
    predict: Predictor,
) -> dict[str, dict[str, float]]:
    """How well pictures of other kinds are told from the test slices that lie upright, by kind.

    Args:
        pictures: of each kind; see :func:`foreign_pictures`.
        test: test slices.
        slices: theirs, uint8 (N, H, W); those that lie upright for certain are also turned by a quarter
            and upside down, as kinds of their own, if there are any.
        rules: how outputs become answers.
        predict: the model.
    """
    kinds = dict(pictures)
    upright = slices[~test.doubtful]
    if len(upright):
        kinds["brain, turned by 90 degrees"] = np.rot90(upright, axes=(1, 2)).copy()
        kinds["brain, turned by 180 degrees"] = np.rot90(upright, 2, axes=(1, 2)).copy()
        kinds["brain, mirrored from top to bottom"] = upright[:, ::-1].copy()
    assert test.answers.distance is not None
    # What is upside down itself cannot show how well this is told.
    ours = test.answers.distance[~test.doubtful]
    table = {}
    for kind, shown in kinds.items():
        answers = rules.answer(as_outputs(predict(shown)))
        assert answers.distance is not None
        assert answers.in_distribution is not None
        truth = np.concatenate([np.zeros(len(ours)), np.ones(len(shown))])
        decisions = np.array([str(decision) for decision in answers.decisions])
        table[kind] = {
            "images": float(len(shown)),
            **(
                {"auroc": float(roc_auc_score(truth, np.concatenate([ours, answers.distance])))}
                if len(ours)
                else {}
            ),
            "out_of_distribution": float((~answers.in_distribution).mean()),
            "decided_tumor": float((decisions == Decision.TUMOR).mean()),
            "decided_no_tumor": float((decisions == Decision.NO_TUMOR).mean()),
            "confident_tumor": float(
                (answers.in_distribution & (answers.tumor_probability > CONFIDENT)).mean()
            ),
        }
    return table
