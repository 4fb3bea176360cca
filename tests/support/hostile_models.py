"""Loads small SavedModels that would do more than compute, and prints what came of each, as JSON.

``python -m tests.support.hostile_models FOLDER [SAVED_MODEL ...]`` writes them into an empty folder,
and looks at others besides. A process of its own, since TensorFlow is slow to import and warns a
lot.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from service.choices import Device
from service.errors import RuntimeUnusable
from service.runtimes.operations import require_computing
from service.runtimes.tensorflow import TensorFlowRuntime

SIDE: Final = 4
SHAPES: Final = {"probabilities": (1,)}
FOLDER: Final = Path(sys.argv[1])
WRITTEN: Final = FOLDER / "written"
"""What a model that is hostile would write."""

SPEC: Final = [tf.TensorSpec((None, SIDE, SIDE), tf.uint8, name="slices")]


def write() -> int:
    """An operation that copies a file; inside of a function."""
    tf.io.write_file(str(WRITTEN), tf.io.read_file("/etc/passwd"))
    return 1


def weighted(before: Callable[[Any], Any] = lambda slices: slices) -> Any:
    """A model with a variable, and so with functions that save and restore it.

    Args:
        before: what it does before it answers.
    """
    model = tf.Module()
    model.weight = tf.Variable(1.0)

    def serve(slices: Any) -> dict[str, Any]:
        before(slices)
        means = tf.reduce_mean(tf.cast(slices, tf.float32), axis=(1, 2))
        return {"probabilities": means[:, None] * model.weight}

    model.serve = tf.function(serve, input_signature=SPEC)
    return model


def branching(slices: Any) -> Any:
    """Writes in a branch that is not taken for black slices, as those of a warm-up are."""
    return tf.cond(tf.reduce_max(slices) > 0, write, lambda: 0)


def nested(_: Any) -> Any:
    """Writes in a function that is called."""
    tf.function(tf.function(write))()


def choosing(slices: Any) -> Any:
    """Calls one of several branches, and does no harm."""
    tf.switch_case(tf.cast(tf.reduce_max(slices), tf.int32), [lambda: 0, lambda: 1])


def saving(_: Any) -> Any:
    """Writes what a checkpoint does."""
    tf.raw_ops.SaveV2(
        prefix=str(WRITTEN), tensor_names=["x"], shape_and_slices=[""], tensors=[tf.constant(1.0)]
    )


def saving_in_a_function(slices: Any) -> Any:
    """Does so in a function that is called, and that has nothing but what a checkpoint needs."""
    tf.function(saving)(slices)


def running_python(_: Any) -> Any:
    """Runs what no file can hold, but names by its number in the process."""
    tf.numpy_function(lambda: np.float32(WRITTEN.write_text("") or 0), [], tf.float32)


def initialising() -> Any:
    """A model that reads a file into a table while it is loaded."""
    vocabulary = FOLDER / "vocabulary"
    vocabulary.write_text("a\n")
    lines = tf.lookup.TextFileInitializer(
        str(vocabulary),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
    )
    table = tf.lookup.StaticHashTable(lines, -1)
    model = weighted(lambda _: table.lookup(tf.constant(["a"])))
    model.table = table
    return model


def keeping() -> Any:
    """A model that keeps what it has seen, which it could tell whoever asks next."""
    last = tf.Variable(0.0)
    model = weighted(lambda slices: last.assign(tf.reduce_mean(tf.cast(slices, tf.float32))))
    model.last = last
    return model


def _saver(graph: Any) -> Any:
    """The function that would write a model's variables."""
    (saver,) = (
        function
        for function in graph.graph_def.library.function
        if any(node.op == "SaveV2" for node in function.node_def)
    )
    return saver


def named_by_an_object(saved: Any) -> None:
    """The object graph offers the function that saves."""
    (graph,) = saved.meta_graphs
    node = next(node for node in graph.object_graph_def.nodes if node.HasField("function"))
    node.function.concrete_functions[0] = _saver(graph).signature.name


def in_another_s_place(saved: Any) -> None:
    """The function that saves says that it does what another one does."""
    _saver(saved.meta_graphs[0]).attr["api_implements"].s = b"serving"


def _called(saved: Any, attribute: str) -> list[Any]:
    """What nodes call, by an attribute of theirs."""
    return [
        called
        for function in saved.meta_graphs[0].graph_def.library.function
        for node in function.node_def
        if attribute in node.attr
        for called in (node.attr[attribute].func, *node.attr[attribute].list.func)
        if called.name
    ]


def called_with_a_name(saved: Any) -> None:
    """A call has another function's name among its attributes."""
    for called in _called(saved, "f"):
        called.attr["g"].func.name = "__inference__traced_save_1"


def branching_with_a_name(saved: Any) -> None:
    """One of several branches has such a name."""
    _called(saved, "branches")[-1].attr["g"].func.name = "__inference__traced_save_1"


def called_of_another(saved: Any) -> None:
    """A call is of a function that is not in the file."""
    for called in _called(saved, "f"):
        called.name = "__inference__traced_save_1"


def of_tensorflow_1(saved: Any) -> None:
    """There are no objects, but a graph that a session runs."""
    saved.meta_graphs[0].ClearField("object_graph_def")


def of_two_graphs(saved: Any) -> None:
    """Whoever loads it may take the other one."""
    saved.meta_graphs.add().CopyFrom(saved.meta_graphs[0])


MODELS: Final[dict[str, Callable[[], Any]]] = {
    "harmless": lambda: weighted(choosing),
    "writes": lambda: weighted(lambda _: write()),
    "writes in a branch": lambda: weighted(branching),
    "writes in a function": lambda: weighted(nested),
    "saves": lambda: weighted(saving),
    "saves in a function": lambda: weighted(saving_in_a_function),
    "runs Python": lambda: weighted(running_python),
    "reads while it is loaded": initialising,
    "keeps what it has seen": keeping,
}
CHANGES: Final[dict[str, Callable[[Any], None]]] = {
    "saver named by an object": named_by_an_object,
    "saver in another's place": in_another_s_place,
    "call with a name": called_with_a_name,
    "branch with a name": branching_with_a_name,
    "call of another's function": called_of_another,
    "of TensorFlow 1": of_tensorflow_1,
    "of two graphs": of_two_graphs,
}


def changed(path: Path, copy: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a SavedModel that somebody has changed."""
    shutil.copytree(path, copy)
    saved = tf.__internal__.saved_model.parse_saved_model(str(path))
    change(saved)
    (copy / "saved_model.pb").write_bytes(saved.SerializeToString())
    return copy


def outcome(path: Path) -> str:
    """Why a SavedModel was refused; empty where it was not."""
    try:
        runtime = TensorFlowRuntime(path, SHAPES, 1, device=Device.CPU)
        runtime.predict(np.ones((1, SIDE, SIDE), np.uint8))
    except RuntimeUnusable as error:
        return str(error)
    return ""


def main() -> dict[str, str]:
    """Why each was refused, by its name; raises RuntimeUnusable for one of the others."""
    paths = {name: FOLDER / name for name in (*MODELS, *CHANGES)}
    for name, make in MODELS.items():
        model = make()
        tf.saved_model.save(model, str(paths[name]), {"serving_default": model.serve})
    for name, change in CHANGES.items():
        changed(paths["harmless"], paths[name], change)
    found = {name: outcome(path) for name, path in paths.items()}
    for path in sys.argv[2:]:
        require_computing(tf.__internal__.saved_model.parse_saved_model(path))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
