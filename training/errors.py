"""What can go wrong offline; each ends a command with one line and exit code 1.

TrainingError
├── RecipeError              the recipe is unknown, or a key or value in it is
├── DatasetError             the folders hold no usable, labelled images
├── PretrainedWeightsError   the weights are missing or not what they should be
├── RunError                 the run's folder is missing, unfinished or belongs to other settings
├── StrategyError            the machines that share a run are not described, or not there
├── DivergedError            the loss is no longer a number
└── ExportRefused            the int8 model is not faithful to the float model, or the name that it is
                             to have stands for other classes
"""

from pydantic import ValidationError


def brief(error: ValidationError) -> str:
    """What is wrong and where, in one line."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, found["loc"])), found["msg"])))
        for found in error.errors(include_url=False, include_input=False)
    )


class TrainingError(Exception):
    """Base of the tree."""


class RecipeError(TrainingError):
    """The recipe is unknown, or a key or value in it is."""


class DatasetError(TrainingError):
    """The folders hold no usable, labelled images."""


class PretrainedWeightsError(TrainingError):
    """The weights are missing or not what they should be."""


class RunError(TrainingError):
    """The run's folder is missing, unfinished or belongs to other settings."""


class StrategyError(TrainingError):
    """The machines that share a run are not described, or not there."""


class DivergedError(TrainingError):
    """The loss is no longer a number."""


class ExportRefused(TrainingError):
    """The int8 model is not faithful to the float model, or its name stands for other classes."""
