"""Where the service operates: the version's rules, as the settings and an administrator change them."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from starlette.datastructures import QueryParams

from contract.answer import Rules
from contract.manifest import Manifest, RegionRecord
from contract.region import RegionSource
from service.answers import MaskForm
from service.errors import Forbidden, InvalidParameter
from service.settings import Settings

logger = logging.getLogger("service.operation")

ADMIN_PARAMETERS: Final = ("tumor_threshold", "refer_low", "refer_high")
"""Query parameters that move the operating point of one request."""

PARAMETERS: Final = ("mask", *ADMIN_PARAMETERS)
"""Query parameters of every prediction."""

_NUMERALS: Final = re.compile(r"[0-9.eE+-]+")
"""What a number is written with. ``float`` alone would take underscores, blanks and other digits."""


def adjusted(rules: Rules, settings: Settings) -> Rules:
    """The rules of a version with everything that the settings change about them."""
    rules = _moved(rules, settings.tumor_threshold, settings.refer_low, settings.refer_high)
    if settings.temperature is not None:
        if rules.temperature is None:
            _warn("BRAIN_TEMPERATURE")
        else:
            rules = replace(rules, temperature=settings.temperature)
    if settings.prediction_set_threshold is not None:
        # Of probabilities that were never calibrated, a set would promise what nobody has measured.
        if rules.temperature is None:
            _warn("BRAIN_PREDICTION_SET_THRESHOLD")
        else:
            rules = replace(rules, set_threshold=settings.prediction_set_threshold)
    if settings.ood_threshold is not None:
        if rules.space is None:
            _warn("BRAIN_OOD_THRESHOLD")
        rules = replace(rules, ood_threshold=settings.ood_threshold)
    region = {
        "threshold": settings.region_threshold,
        "min_cells": settings.region_min_cells,
        "min_tumor_probability": settings.region_min_tumor_probability,
    }
    changes = {name: value for name, value in region.items() if value is not None}
    if changes and rules.region is None:
        _warn(", ".join(f"BRAIN_REGION_{name.upper()}" for name in changes))
    elif changes and rules.region is not None:
        record = RegionRecord.model_validate(rules.region.model_dump() | changes)
        rules = replace(rules, region=record)
    return rules


def described(rules: Rules, manifest: Manifest) -> dict[str, Any]:
    """The operating point of a version here, as ``/health`` has it; what it lacks is absent.

    Args:
        rules: of the version, as the settings change them.
        manifest: of the version. Its sensitivity is that of its own threshold and calibration alone.
    """
    point: dict[str, Any] = {"tumor_threshold": rules.tumor_threshold}
    if rules.refer_band is not None:
        point["refer_low"], point["refer_high"] = rules.refer_band
    record = manifest.answer
    if (
        record is not None
        and record.operating_point is not None
        and rules.tumor_threshold == manifest.tumor_threshold
        and rules.temperature == record.temperature
    ):
        point["sensitivity"] = record.operating_point.sensitivity
    return point


@dataclass(frozen=True, slots=True)
class Options:
    """What the query of a request asks for.

    Attributes:
        mask: how regions show their mask.
        tumor_threshold, refer_low, refer_high: of this request alone.
    """

    mask: MaskForm = MaskForm.NONE
    tumor_threshold: float | None = None
    refer_low: float | None = None
    refer_high: float | None = None

    @classmethod
    def of(cls, query: QueryParams, *, is_admin: bool, others: Sequence[str] = ()) -> Self:
        """The options in a query.

        Args:
            query: of the request.
            is_admin: the request may move the operating point.
            others: parameters that the route reads itself.

        Raises:
            Forbidden: it moves the operating point, which only an administrator may.
            InvalidParameter: a value makes no sense, or a parameter does not exist or comes twice.
        """
        if not query:
            return cls()
        _check_names(query, (*PARAMETERS, *others))
        named = [name for name in ADMIN_PARAMETERS if name in query]
        if named and not is_admin:
            raise Forbidden(f"{named[0]} needs a key with the role 'admin'")
        try:
            mask = MaskForm(query.get("mask", MaskForm.NONE))
        except ValueError:
            raise InvalidParameter("mask must be one of none, rle, png") from None
        shares = {name: _share(name, query[name]) for name in named}
        if ("refer_low" in shares) != ("refer_high" in shares):
            raise InvalidParameter("refer_low and refer_high must come together")
        if shares.get("refer_low", 0) > shares.get("refer_high", 1):
            raise InvalidParameter("refer_low must not be above refer_high")
        return cls(mask, **shares)

    def applied(self, rules: Rules) -> Rules:
        """The rules for this request."""
        return _moved(rules, self.tumor_threshold, self.refer_low, self.refer_high)


def _check_names(query: QueryParams, known: Sequence[str]) -> None:
    """Without this a misspelled threshold would leave the decision to the version's own."""
    for name, times in Counter(name for name, _ in query.multi_items()).items():
        if name not in known:
            # Its name is the client's, and may be anything.
            raise InvalidParameter(f"there is no such parameter; there are {', '.join(known)}")
        if times > 1:
            raise InvalidParameter(f"{name} must come once")


def _moved(rules: Rules, threshold: float | None, low: float | None, high: float | None) -> Rules:
    """The rules at another threshold, with another band, or both.

    A threshold that comes alone takes the band with it: were there a gap between them, a slice could be
    referred, and one of a higher tumour probability be no tumour.
    """
    if threshold is not None:
        record = rules.region
        # Without a mask, a slice has a region from the threshold on, unless a setting says otherwise.
        if (
            record is not None
            and rules.region_source is RegionSource.CAM
            and record.min_tumor_probability == rules.tumor_threshold
        ):
            record = record.model_copy(update={"min_tumor_probability": threshold})
        rules = replace(rules, tumor_threshold=threshold, region=record)
    if low is not None and high is not None:
        rules = replace(rules, refer_band=(low, high))
    elif threshold is not None and rules.refer_band is not None:
        rules = replace(rules, refer_band=_stretched(rules.refer_band, threshold))
    return rules


def _stretched(band: tuple[float, float], threshold: float) -> tuple[float, float]:
    """The band, reaching to a threshold; an empty one refers nothing, and stays so."""
    low, high = band
    return (min(low, threshold), max(high, threshold)) if low < high else band


def _share(name: str, text: str) -> float:
    try:
        value = float(text) if _NUMERALS.fullmatch(text) else -1.0
    except ValueError:
        value = -1.0
    # Not a number is in no order with anything.
    if not 0 <= value <= 1:
        raise InvalidParameter(f"{name} must be a number from 0 to 1")
    return value


def _warn(names: str) -> None:
    logger.warning("a setting has no effect on this version", extra={"fields": {"setting": names}})
