"""Loads ``/predict`` with real slices and checks every answer: ``make load``.

Before the load starts, each slice is predicted alone. Under load its answer must be the same again: an
answer that went to the wrong request, or a neighbour that changed it, counts as a failure, and locust
then exits with 1. ``LOAD_API_KEY`` is a key for the service, where it has keys.
"""

import json
import os
import random
import sys
import uuid
from pathlib import Path
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
import requests
from locust import FastHttpUser, between, events, task
from locust.env import Environment
from locust.exception import StopUser

DATA: Final = Path(__file__).resolve().parents[1] / "tests" / "data"
SLICES: Final = sorted((DATA / "slices").glob("*/*.jpg"))
DICOMS: Final = sorted((DATA / "dicom").glob("*.dcm"))
NOT_AN_IMAGE: Final = "broken.jpg"

TOLERANCE: Final = 0.02
"""How far a probability may move under load: a GPU's sums depend on the batch's size."""

FILES: Final = {path.name: path.read_bytes() for path in SLICES + DICOMS} | {
    NOT_AN_IMAGE: b"\xff\xd8\xff no image"
}

KEY: Final = {"Authorization": f"Bearer {key}"} if (key := os.environ.get("LOAD_API_KEY")) else {}
"""Headers with the API key. Its variable has not the prefix of the service's settings, which would then
refuse to start; an argument would show the key to everybody on the machine."""

alone: dict[str, dict[str, Any]] = {}
"""What the service answered to each file before the load."""


class WrongAnswerError(Exception):
    """An answer that the service must not give."""


def multipart(names: list[str]) -> tuple[bytes, str]:
    """One multipart body with the files in this order, and its media type."""
    boundary = uuid.uuid4().hex
    body = b""
    for name in names:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            f"Content-Type: {media_type(name)}\r\n\r\n"
        )
        body += head.encode() + FILES[name] + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def media_type(name: str) -> str:
    """Media type of a file."""
    return "application/dicom" if name.endswith(".dcm") else "image/jpeg"


def check_prediction(prediction: dict[str, Any]) -> None:
    """Refuses a prediction that is wrong by itself."""
    probabilities = prediction["probabilities"]
    if abs(sum(probabilities.values()) - 1) > 0.01:
        raise WrongAnswerError(f"probabilities add up to {sum(probabilities.values())}")
    if prediction["label"] != max(probabilities, key=probabilities.__getitem__):
        raise WrongAnswerError("the label is not the most probable class")


def check_same(name: str, prediction: dict[str, Any]) -> None:
    """Refuses a prediction that differs from what the file got before the load."""
    if name == NOT_AN_IMAGE:
        if "error" not in prediction:
            raise WrongAnswerError("a broken file got a prediction")
        return
    if "error" in prediction:
        raise WrongAnswerError(f"{name}: {prediction['error']}")
    check_prediction(prediction)
    expected = alone[name]
    if prediction["label"] != expected["label"]:
        raise WrongAnswerError(f"{name} became {prediction['label']}, was {expected['label']}")
    for label, probability in expected["probabilities"].items():
        if abs(prediction["probabilities"][label] - probability) > TOLERANCE:
            raise WrongAnswerError(f"{name}: the probability of {label} moved")


def before_the_load(environment: Environment, **_: object) -> None:
    """Asks for every file once; without an answer to each there is no load, and locust ends with 1."""
    if environment.host is not None:
        # The users get it as well, and put their paths right behind it.
        environment.host = environment.host.rstrip("/")
    try:
        predict_alone(f"{environment.host}/predict")
    except (requests.RequestException, WrongAnswerError) as error:
        words = str(error)
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            # Theirs are of urllib3's objects and several lines long.
            words = type(error).__name__
        print(f"no answer from {environment.host}: {words}", file=sys.stderr)
        environment.process_exit_code = 1
        if environment.runner is not None:
            # Elsewhere, since it first ends what starts the users, which is what waits here.
            gevent.spawn(environment.runner.quit).join()


def predict_alone(url: str) -> None:
    """Asks for every file once, so that the answers under load have something to equal.

    Raises:
        requests.RequestException: the service cannot be reached, or refuses a file.
        WrongAnswerError: a prediction is wrong by itself.
    """
    right = 0
    for path in SLICES + DICOMS:
        answer = requests.post(
            url,
            data=FILES[path.name],
            headers={"Content-Type": media_type(path.name), **KEY},
            timeout=30,
        )
        answer.raise_for_status()
        prediction = answer.json()["predictions"][0]
        check_prediction(prediction)
        alone[path.name] = prediction
        right += prediction["label"] == path.parent.name
    print(f"before the load: {right} of {len(SLICES)} slices get the label of their folder")


events.test_start.add_listener(before_the_load)  # type: ignore[no-untyped-call]  # locust's own


class Reader(FastHttpUser):
    """A client that waits for each answer before it asks again."""

    wait_time = between(0, 0)
    connection_timeout = 10.0
    network_timeout = 30.0

    def on_start(self) -> None:
        """Stops where not all of the first answers could be had."""
        if len(alone) < len(SLICES + DICOMS):
            raise StopUser

    @task(6)
    def raw_slice(self) -> None:
        """A JPEG as the body."""
        self._raw("raw JPEG", random.choice(SLICES).name)

    @task(1)
    def raw_dicom(self) -> None:
        """A DICOM object as the body."""
        self._raw("raw DICOM", random.choice(DICOMS).name)

    @task(3)
    def one_file(self) -> None:
        """A form with one file, as the web page sends it."""
        self._form("form, 1 file", [random.choice(SLICES).name])

    @task(1)
    def several_files(self) -> None:
        """A form with a broken file among good ones, which must not suffer from it."""
        names = [path.name for path in random.sample(SLICES, 3)]
        names.insert(random.randrange(len(names) + 1), NOT_AN_IMAGE)
        self._form("form, 3 files and a broken one", names)

    def _raw(self, kind: str, name: str) -> None:
        self._ask(kind, [name], FILES[name], media_type(name))

    def _form(self, kind: str, names: list[str]) -> None:
        self._ask(kind, names, *multipart(names))

    def _ask(self, kind: str, names: list[str], body: bytes, content_type: str) -> None:
        with self.client.post(
            "/predict",
            data=body,  # type: ignore[arg-type]  # bytes are sent as they are
            headers={"Content-Type": content_type, **KEY},
            name=kind,
            catch_response=True,
        ) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}: {answer.text}")
                return
            try:
                predictions = json.loads(answer.text)["predictions"]
                if len(predictions) != len(names):
                    raise WrongAnswerError(f"{len(predictions)} answers to {len(names)} files")
                for name, prediction in zip(names, predictions, strict=True):
                    check_same(name, prediction)
            except (WrongAnswerError, KeyError, ValueError) as error:
                answer.failure(f"wrong answer: {error!r}")
