"""How often a client may ask, and how refusals are spaced out."""

from pathlib import Path

import pytest

from service.keys import Role, make_key
from service.pacing import MAX_TURN_SECONDS, REFUSALS_PER_SECOND, Pacer
from service.rates import RateLimiter
from tests.support.keys import write_keys
from tests.support.service import (
    MODEL,
    FakeRuntimes,
    occupied,
    read_status,
    serving,
    settings_for,
)


def test_a_second_s_worth_at_once_and_then_the_rate() -> None:
    rates = RateLimiter(4)
    assert [rates.take("a", 100.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert rates.take("a", 100.25) == 0
    assert rates.take("a", 100.25) == 0.25
    assert [rates.take("a", 200.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_less_than_one_a_second() -> None:
    rates = RateLimiter(0.1)
    assert rates.take("a", 0.0) == 0
    assert rates.take("a", 1.0) == pytest.approx(9)
    assert rates.take("a", 10.0) == 0


def test_clients_do_not_share_a_bucket_and_memory_is_bounded() -> None:
    rates = RateLimiter(1, max_clients=2)
    assert [rates.take(client, 0.0) for client in "aabb"] == [0, 1, 0, 1]
    assert rates.take("c", 0.0) == 0
    assert len(rates._buckets) == 2
    assert rates.take("b", 0.0) == 1


def test_over_its_rate_a_client_gets_429(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    with serving(settings_for(model_store, rate_per_second=0.02), runtimes) as service:
        assert service.predict_raw(jpeg).status_code == 200
        refused = service.predict_raw(jpeg)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 50
        for path in ("/health", "/metrics", "/models"):
            assert service.client.get(path).status_code == 200


def test_each_key_has_a_rate_of_its_own(
    model_store: Path, tmp_path: Path, jpeg: bytes, runtimes: FakeRuntimes
) -> None:
    made = [make_key(name, [Role.PREDICT]) for name in ("one", "two")]
    path = write_keys(tmp_path / "keys.txt", *(key for _, key in made))
    settings = settings_for(model_store, rate_per_second=0.02, api_keys_file=path)
    with serving(settings, runtimes) as service:
        for presented, _ in made:
            headers = {"X-API-Key": presented}
            assert service.predict_raw(jpeg, headers=headers).status_code == 200
            assert service.predict_raw(jpeg, headers=headers).status_code == 429


def test_what_a_key_may_not_do_counts_as_well(
    model_store: Path, tmp_path: Path, runtimes: FakeRuntimes
) -> None:
    presented, key = make_key("one", [Role.PREDICT])
    path = write_keys(tmp_path / "keys.txt", key)
    settings = settings_for(model_store, rate_per_second=0.02, api_keys_file=path)
    with serving(settings, runtimes) as service:
        for value, status in ((presented, 403), ("one.wrong", 401)):
            statuses = [
                service.client.post(
                    f"/models/{MODEL}/1/activate", headers={"X-API-Key": value}
                ).status_code
                for _ in range(2)
            ]
            assert statuses == [status, 429]


def test_a_browser_that_asks_first_uses_nothing_up(
    model_store: Path, tmp_path: Path, runtimes: FakeRuntimes
) -> None:
    """It sends no key by itself; whoever sends one that is wrong is slowed down all the same."""
    _, key = make_key("one", [Role.PREDICT])
    path = write_keys(tmp_path / "keys.txt", key)
    settings = settings_for(model_store, rate_per_second=0.02, api_keys_file=path)
    with serving(settings, runtimes) as service:

        def statuses(**headers: str) -> list[int]:
            answers = [service.client.options("/predict", headers=headers) for _ in range(2)]
            return [answer.status_code for answer in answers]

        assert statuses(Origin="https://x.example") == [401, 401]
        assert statuses(Authorization="Bearer one.wrong") == [401, 429]


def test_few_refusals_pause_nobody_and_many_each_have_their_turn() -> None:
    pacer, spacing = Pacer(), 1 / REFUSALS_PER_SECOND
    assert [pacer.turn(now) for now in (10.0, 11.0, 12.0)] == [0, 0, 0]
    assert [pacer.turn(12.0) for _ in range(3)] == pytest.approx(
        [spacing, 2 * spacing, 3 * spacing]
    )
    assert max(pacer.turn(12.0) for _ in range(10_000)) == pytest.approx(MAX_TURN_SECONDS)
    assert pacer.turn(12.0 + 2 * MAX_TURN_SECONDS) == 0


def test_the_more_are_refused_the_later_they_shall_return(
    model_store: Path, jpeg: bytes, runtimes: FakeRuntimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pacing.REFUSALS_PER_SECOND", 1)
    # Else each refusal would have to wait until the client before it is listened to again.
    monkeypatch.setattr("service.pacing.MAX_PAUSE_SECONDS", 0)
    with serving(settings_for(model_store, queue_size=1, max_files=1), runtimes) as service:
        with occupied(service, runtimes, jpeg) as (accepted, _):
            refused = [service.predict_raw(jpeg) for _ in range(6)]
            runtimes.last.gate.set()
            assert read_status(accepted) == 200
        assert {answer.status_code for answer in refused} == {503}
        waits = [int(answer.headers["retry-after"]) for answer in refused]
        assert waits == sorted(waits)
        assert (waits[0], waits[-1]) == (1, MAX_TURN_SECONDS)
