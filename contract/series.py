"""From the slices of a series to the series: how probable a tumour is anywhere in it.

The rule: the slices are put in the order of their places, the mean is taken of each three neighbours,
and the highest of these means is the series'. A tumour shows in neighbouring slices, while a single
slice that stands out is most often an error; a plain maximum takes the worst of some hundred of them.
Of several slices at one place the highest counts: a tumour may show in one contrast alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.preprocessing import DicomReference

NEIGHBOURS: Final = 3
"""Places that a mean is taken of; of fewer places, it is taken of all."""

METHOD: Final = "the highest mean of three neighbouring positions, each with its highest slice"
"""How a series' probability is formed, for reports."""

SAME_PLANE: Final = 0.996
"""Cosine between normals of one stack: within five degrees."""

SAME_PLACE_MM: Final = 0.1
"""Slices closer than this are one place seen several times: echoes, b-values, points in time.

Writers round the positions of each contrast anew; no scanner makes slices that lie so close together.
"""

MAX_UNFAMILIAR_SHARE: Final = 0.5
"""Of a series' slices that may be out of distribution before the others no longer count for all; of two
whole volumes it was 1 of 180 and 0 of 79 with version 4 of the default model."""


@dataclass(frozen=True, slots=True)
class SeriesScore:
    """What a series comes to.

    Attributes:
        tumor_probability: of the series, 0 to 1.
        order: indices of the slices in the order of their places, one stack after the other.
        window: indices of the slices at the places whose mean it is.
        most_suspicious: the one of these with the highest probability.
    """

    tumor_probability: float
    order: tuple[int, ...]
    window: tuple[int, ...]
    most_suspicious: int


def is_mostly_unfamiliar(unfamiliar: int, slices: int) -> bool:
    """Whether so many slices of a series are out of distribution that the others do not count."""
    return unfamiliar > MAX_UNFAMILIAR_SHARE * slices


def score_series(places: Sequence[DicomReference], probabilities: Sequence[float]) -> SeriesScore:
    """Forms a series' tumour probability.

    Slices of one plane make a stack, in the order of their positions along its normal. Slices at one
    position count once, with the highest of them, unless all of a stack state the same one: that is as
    good as none. Slices that do not say where they lie make a stack of their own. They, those at one
    position, and the stacks are in the order of instance number, then SOP instance UID, then frame
    number. The series' probability is the highest of its stacks'.

    Args:
        places: of the slices of one series, at least one, in any order.
        probabilities: tumour probability of each, 0 to 1.

    Raises:
        ValueError: there are none, or not as many of both.
    """
    if not places or len(places) != len(probabilities):
        raise ValueError("a series needs slices, and each of them a probability")
    values = np.asarray(probabilities, np.float64)
    order: list[int] = []
    best = -1.0
    window: tuple[int, ...] = ()
    for stack in _stacks(places):
        order.extend(index for place in stack for index in place)
        highest = np.array([values[place].max() for place in stack])
        size = min(NEIGHBOURS, len(highest))
        running = np.convolve(highest, np.ones(size) / size, "valid")
        start = int(running.argmax())
        if running[start] > best:
            best = float(running[start])
            window = tuple(index for place in stack[start : start + size] for index in place)
    leading = max(window, key=lambda index: values[index])
    return SeriesScore(float(np.clip(best, 0, 1)), tuple(order), window, leading)


def _stacks(places: Sequence[DicomReference]) -> list[list[list[int]]]:
    """Stacks of places of slices."""
    normals: list[NDArray[np.float64]] = []
    members: list[list[int]] = []
    lost: list[int] = []
    for index in sorted(range(len(places)), key=lambda index: _rank(places[index])):
        place = places[index]
        if place.position_mm is None or place.orientation is None:
            lost.append(index)
            continue
        normal = np.cross(place.orientation[:3], place.orientation[3:])
        # Cosines rounded to two decimals make it shorter than SAME_PLANE: not even a slice's own plane.
        normal /= np.linalg.norm(normal)
        for known, stack in zip(normals, members, strict=True):
            if known @ normal > SAME_PLANE:
                stack.append(index)
                break
        else:
            normals.append(normal)
            members.append([index])
    stacks = [
        _by_depth(stack, places, normal) for stack, normal in zip(members, normals, strict=True)
    ]
    if lost:
        stacks.append([[index] for index in lost])
    return stacks


def _rank(place: DicomReference) -> tuple[int, str, int]:
    """Orders what the places do not; never by arrival, which differs each time that a series comes."""
    return place.instance_number or 0, place.sop_instance_uid or "", place.frame


def _by_depth(
    stack: Sequence[int], places: Sequence[DicomReference], normal: NDArray[np.float64]
) -> list[list[int]]:
    """The slices of a stack, gathered by place, along its normal; if there is one, each by itself."""
    depths = {index: float(normal @ np.asarray(places[index].position_mm)) for index in stack}
    gathered: list[list[int]] = []
    for index in sorted(stack, key=lambda index: depths[index]):
        if gathered and depths[index] - depths[gathered[-1][0]] < SAME_PLACE_MM:
            gathered[-1].append(index)
        else:
            gathered.append([index])
    if len(gathered) == 1:
        # A position that was zeroed or copied to all says nothing, and the highest slice of a whole
        # head is most often an error. True contrasts at one place are taken for neighbours.
        return [[index] for index in stack]
    return gathered
