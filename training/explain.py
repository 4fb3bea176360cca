"""Where a class is seen: class activation maps, and Grad-CAM where there are none."""

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


def grad_cam(model: keras.Model, head: keras.Model, scaled: Any, recipe: Recipe) -> Any:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the most probable tumour class.

    Args:
        model: see :func:`training.model.build`.
        head: its :func:`training.model.classifying_head`.
        scaled: slices as the network takes them, float32 (N, H, W).
        recipe: the model's.

    Returns:
        float32 (N, h, w), 0 to 1, where 1 is the slice's own highest cell; all 0 where no cell
        speaks for that class.
    """
    raw = model.get_layer(NETWORK)(scaled, training=False)
    features = raw[FEATURES]
    # The backbone stays outside: its gradients would be traced and written, and thrown away.
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
