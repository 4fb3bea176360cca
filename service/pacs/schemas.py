"""Answers about what goes back to a PACS, as OpenAPI describes them; see :mod:`service.schemas`."""

from typing import Final

from pydantic import Field

from service.schemas import Pacs, Schema

LISTED: Final = 100
"""Results given up that are listed, and series set aside: the newest ones."""


class RefusedObject(Schema):
    """A result that was given up."""

    kind: str = Field(description="Modality.", examples=["SR"])
    object: str = Field(description="SHA-256 of its SOP instance UID.")
    reason: str = Field(
        description="`refused_` and a failure reason (0008,1197), `http_` and a status, or "
        "`unreadable` where the spool's disk does not give it.",
        examples=["refused_0122"],
    )
    attempts: int
    created: float = Field(description="Unix seconds.")
    request_id: str = Field(description="Of the request that brought the newest of its images.")


class SeriesSetAside(Schema):
    """A series that could not be analysed."""

    series: str = Field(description="SHA-256 of its Series Instance UID.")
    instances: int = Field(description="Its images.")
    reason: str = Field(
        description="Error code of the last attempt; `ended_the_process` where it had none.",
        examples=["inference_failed"],
    )
    since: float = Field(description="Unix seconds.")
    request_id: str = Field(description="Of the request that brought the newest of its images.")


class Deliveries(Pacs):
    """The way from a PACS and back, and the newest of what was given up on it."""

    refused: list[RefusedObject] = Field(
        max_length=LISTED, description=f"The newest {LISTED}; `objects_dead` counts all."
    )
    set_aside: list[SeriesSetAside] = Field(
        max_length=LISTED, description=f"The newest {LISTED}; `series_dead` counts all."
    )


class Retried(Schema):
    """What is tried again."""

    series: int
    objects: int
