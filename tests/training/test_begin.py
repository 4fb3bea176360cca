"""All workers train one run, or none does."""

import shutil
from pathlib import Path

import pytest

from training.catalogue import load_recipe
from training.errors import RunError, TrainingError
from training.prepare import prepare
from training.run import Run, RunConfig
from training.splits import Protocol

pytestmark = pytest.mark.tensorflow

CONFIG = RunConfig(
    recipe=load_recipe("baseline_cnn"),
    protocol=Protocol.CLEAN,
    data=(),
    roots=(Path("/one"),),
    splits={"train": ("a",)},
    truth="0" * 64,
)


def _begun(folder: Path, configs: list[RunConfig], folders: list[Path] | None = None) -> list[str]:
    """What each worker ends with, or an empty text for the run."""
    pytest.importorskip("tensorflow", reason="training needs TensorFlow")
    import threading

    from training.fit import begin
    from training.strategy import Strategy, StrategyName

    meeting = threading.Barrier(len(configs))
    brought: dict[int, bytes] = {}
    ends = [""] * len(configs)

    class Worker(Strategy):
        def __init__(self, place: int) -> None:
            super().__init__(StrategyName.NONE)
            self.place, self.chief = place, place == 0

        def gathered(self, content: bytes) -> list[bytes]:
            brought[self.place] = content
            meeting.wait(timeout=20)
            found = [brought[place] for place in range(len(configs))]
            meeting.wait(timeout=20)
            return found

    def work(place: int) -> None:
        try:
            begin((folders or [folder] * 9)[place], configs[place], False, Worker(place))
        except TrainingError as error:
            ends[place] = str(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(configs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return ends


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipe": load_recipe("baseline_cnn", {"seed": 7})}, "recipe"),
        ({"splits": {"train": ("b",)}}, "splits"),
        ({"truth": "1" * 64, "held_out": ("s",)}, "held_out, truth"),
    ],
    ids=lambda change: "-".join(change) if isinstance(change, dict) else "",
)
def test_workers_that_differ_train_nothing(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    ends = _begun(tmp_path / "run", [CONFIG, CONFIG, CONFIG.model_copy(update=change)])
    assert all(f"they differ in {named}, or" in end for end in ends)


def test_workers_whose_data_lie_elsewhere_train_together(tmp_path: Path) -> None:
    elsewhere = CONFIG.model_copy(update={"roots": (Path("/two"),), "packages": {"numpy": "1"}})
    assert _begun(tmp_path / "run", [CONFIG, elsewhere]) == ["", ""]
    assert Run.open(tmp_path / "run").config == CONFIG


def test_workers_do_not_wait_for_a_first_one_that_could_not_begin(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "progress.npz").write_bytes(b"")
    first, other = _begun(tmp_path / "run", [CONFIG, CONFIG])
    assert "add --resume" in first
    assert "the first of them could not begin" in other


def test_workers_that_see_other_folders_train_nothing(tmp_path: Path) -> None:
    ends = _begun(tmp_path, [CONFIG, CONFIG], [tmp_path / "one", tmp_path / "two"])
    assert all("do not see the same folder" in end for end in ends)


def test_one_worker_begins_alone(tmp_path: Path) -> None:
    assert _begun(tmp_path / "run", [CONFIG]) == [""]
    with pytest.raises(RunError):
        Run.open(tmp_path / "run").require_finished()


def test_what_is_hardly_meant_is_said(small_data: Path, tmp_path: Path) -> None:
    from training.fit import remarks

    data = tmp_path / "ours"
    shutil.copytree(small_data, data)
    for part in ("Training", "Testing"):
        shutil.rmtree(data / part / "pituitary")
    recipe = load_recipe("baseline_cnn")
    prepared = prepare(recipe, [data], Protocol.CLEAN)
    assert prepared.config.never_shown == ("pituitary",)
    (line,) = remarks(prepared.config, prepared.images)
    assert "no training image shows pituitary" in line
    whole = prepare(recipe, [small_data], Protocol.CLEAN)
    assert remarks(whole.config, whole.images) == []
    misspelt = recipe.model_copy(update={"train_only": ("smal",)})
    (line,) = remarks(whole.config.model_copy(update={"recipe": misspelt}), whole.images)
    assert "train_only names smal, and no --data folder is called so" in line
