"""What a SavedModel may do: compute.

Unlike a LiteRT file, a SavedModel may hold operations that read and write files, or run Python. They
would run with the rights of the service, some of them while it is loaded.
"""

from collections.abc import Iterator
from typing import Any, Final

from service.errors import RuntimeUnusable

_SHAPES: Final = """
    BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Cast ConcatOffset
    ConcatV2 Const DepthToSpace DynamicStitch ExpandDims Fill GatherNd GatherV2 Identity IdentityN
    InvertPermutation LinSpace MirrorPad NoOp OneHot OnesLike Pack Pad PadV2 Placeholder
    PlaceholderWithDefault PreventGradient Range Rank Reshape ReverseV2 ScatterNd Select SelectV2
    Shape ShapeN Size Slice SpaceToBatchND SpaceToDepth Split SplitV Squeeze StopGradient
    StridedSlice StridedSliceGrad Tile TopKV2 Transpose Unpack Where ZerosLike
"""
_ARITHMETIC: Final = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BatchMatMulV3 Ceil
    ClipByValue Cumsum Div DivNoNan Einsum Equal Erf Erfc Exp Expm1 Floor FloorDiv FloorMod Greater
    GreaterEqual IsFinite IsInf IsNan Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr
    MatMul Max Maximum Mean Min Minimum Mul MulNoNan Neg NotEqual Pow Prod RealDiv Reciprocal Round
    Rsqrt RsqrtGrad Sign Sqrt SqrtGrad Square SquaredDifference Sub Sum
"""
_LAYERS: Final = """
    AvgPool AvgPoolGrad BiasAdd BiasAddGrad Conv2D Conv2DBackpropFilter Conv2DBackpropInput
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Elu
    EluGrad FusedBatchNormGradV3 FusedBatchNormV3 LeakyRelu LeakyReluGrad LogSoftmax MaxPool
    MaxPoolGrad Relu Relu6 Relu6Grad ReluGrad ResizeArea ResizeBicubic ResizeBilinear
    ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad Selu SeluGrad Sigmoid
    SigmoidGrad Softmax Softplus SoftplusGrad Softsign SoftsignGrad Tanh TanhGrad
"""
_CALLS: Final = """
    Case DisableCopyOnRead If PartitionedCall ReadVariableOp StatefulPartitionedCall StatelessCase
    StatelessIf StatelessWhile VarHandleOp VarIsInitializedOp While
"""

COMPUTE: Final = frozenset((_SHAPES + _ARITHMETIC + _LAYERS + _CALLS).split())
"""Operations that neither look nor reach outside of the model, and keep nothing of a slice.

What ``training export`` writes of every recipe, and what is of the same kind. TensorFlow has some
1,400 others, and gets more with each release, so what is not known here to be harmless is refused: a
recipe that needs another one fails in ``tests/training/test_served_recipes.py``.
"""

CHECKPOINT: Final = frozenset(
    {
        "AssignVariableOp",
        "MergeV2Checkpoints",
        "RestoreV2",
        "SaveV2",
        "ShardedFilename",
        "StaticRegexFullMatch",
        "StringJoin",
    }
)
"""What each SavedModel has besides, in the two functions that would write and read its variables."""


def require_computing(saved: Any) -> None:
    """Does nothing for a SavedModel that only computes.

    Of a SavedModel of TensorFlow 2 its functions may run, when it is loaded or when it predicts; the
    graph around them is not.

    Args:
        saved: the ``SavedModel`` (tensorflow/core/protobuf/saved_model.proto) that is to be loaded.

    Raises:
        RuntimeUnusable: it has an operation of another kind, calls functions of others, or is of
            TensorFlow 1.
    """
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise RuntimeUnusable("the SavedModel is none of TensorFlow 2")
    (graph,) = saved.meta_graphs
    names = {function.signature.name for function in graph.graph_def.library.function}
    for function in graph.graph_def.library.function:
        others = {node.op for node in function.node_def} - COMPUTE
        if others and not (others <= CHECKPOINT and _is_out_of_reach(function, graph)):
            # The file is its author's, and so is the name.
            raise RuntimeUnusable(
                f"the SavedModel has an operation that may do more than compute: {min(others)[:64]!r}"
            )
        if not all(called.name in names and not called.attr for called in _called(function)):
            raise RuntimeUnusable("the SavedModel calls a function that is none of its own")


def _called(function: Any) -> Iterator[Any]:
    """The functions that one calls, as a name and attributes.

    Attributes may name functions too, and these names TensorFlow takes as they are, where it gives
    new ones to all that it loads: they could be those of another version's functions.
    """
    for node in function.node_def:
        for value in node.attr.values():
            yield from filter(lambda called: called.name, (value.func, *value.list.func))


def _is_out_of_reach(function: Any, graph: Any) -> bool:
    """Whether nothing that may run names a function, or could be given it in another's place."""
    name = function.signature.name
    functions = graph.graph_def.library.function
    callers = [other for other in functions if other.signature.name != name]
    return "api_implements" not in function.attr and not any(
        name.encode() in part.SerializeToString() for part in (graph.object_graph_def, *callers)
    )
