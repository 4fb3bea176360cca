"""Where a class is seen: class activation maps of a linear head, and Grad-CAM of any other."""

from typing import Any

import keras
import tensorflow as tf

from training.model import CLASSIFIER, FEATURES, NETWORK
from training.recipe import Recipe


def class_maps(model: keras.Model, raw: dict[str, Any]) -> Any:
    """Class activation maps of a linear head (Zhou et al., CVPR 2016), bias included.

    Args:
        model: see :func:`training.model.build`.
        raw: its network's outputs.

    Returns:
        float32 (N, h, w, classes): the mean over the cells is the class's logit.
    """
    classifier = model.get_layer(NETWORK).get_layer(CLASSIFIER)
    kernel = tf.convert_to_tensor(classifier.kernel)[None, None]
    return tf.nn.conv2d(raw[FEATURES], kernel, 1, "VALID") + classifier.bias


def gradient_maps(model: keras.Model, raw: dict[str, Any], recipe: Recipe) -> Any:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of every class, from a forward pass alone.

    A head of dense ReLU layers is linear around each slice: its gradient is the product of its
    kernels, without the units that are off. So the maps can be outputs of a model that knows no
    gradients, as a LiteRT file. They are what :func:`grad_cam` gives, neither rectified nor scaled.

    Args:
        model: see :func:`training.model.build`.
        raw: its network's outputs.
        recipe: the model's.

    Returns:
        float32 (N, h, w, classes); for a sigmoid head's class without a unit, what speaks against
        the other.
    """
    network, features = model.get_layer(NETWORK), raw[FEATURES]
    _, height, width, channels = features.shape
    flat = tf.reshape(features, (-1, height * width, channels))
    layers = [network.get_layer(f"dense{number}") for number in range(len(recipe.head.dense))]
    kernels = [tf.convert_to_tensor(layer.kernel) for layer in layers]
    kernels.append(_class_kernel(network.get_layer(CLASSIFIER), recipe))
    # Grad-CAM weighs a feature with the mean of its gradient over the cells: of the kernel's rows here.
    if recipe.head.pooling == "average":
        x = tf.reduce_mean(flat, axis=1)
        kernels[0] /= height * width
    else:
        x = tf.reshape(features, (-1, height * width * channels))
        kernels[0] = tf.reduce_mean(tf.reshape(kernels[0], (height * width, channels, -1)), axis=0)
    active = []
    for layer in layers:
        x = layer(x)
        active.append(tf.cast(x > 0, tf.float32)[:, None])
    gradient = tf.transpose(kernels.pop())[None]
    while active:
        gradient = tf.matmul(gradient * active.pop(), kernels.pop(), transpose_b=True)
    maps = tf.matmul(flat, gradient, transpose_b=True)
    return tf.reshape(maps, (-1, height, width, len(recipe.classes)))


def _class_kernel(classifier: Any, recipe: Recipe) -> Any:
    """The classifier's kernel with a column for each class, (units, classes)."""
    kernel = tf.convert_to_tensor(classifier.kernel)
    if recipe.head.output == "softmax":
        return kernel
    both = [-kernel, kernel]
    return tf.concat(both[::-1] if recipe.classes[0] in recipe.tumor_classes else both, axis=1)


def grad_cam(head: keras.Model, features: Any, recipe: Recipe) -> Any:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the most probable tumour class.

    Args:
        head: a model's :func:`training.model.classifying_head`.
        features: what its backbone gives for slices, float32 (N, h, w, d). The backbone stays outside:
            its gradients would be traced and written, and thrown away.
        recipe: the model's.

    Returns:
        float32 (N, h, w), 0 to 1, where 1 is the slice's own highest cell; all 0 where no cell
        speaks for that class.
    """
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = head(features, training=False)
        is_tumor = tf.constant([name in recipe.tumor_classes for name in recipe.classes])
        highest = tf.reduce_sum(tf.reduce_max(tf.where(is_tumor, logits, float("-inf")), axis=-1))
    gradients = tape.gradient(highest, features)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))
    peak = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, peak)
