"""Where a class is seen: class activation maps, and Grad-CAM where there are none."""

from typing import Any

import keras
import tensorflow as tf

from training.model import CLASSIFIER, FEATURES, LOGITS, NETWORK
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


def grad_cam(model: keras.Model, scaled: Any, recipe: Recipe) -> Any:
    """Grad-CAM (Selvaraju et al., ICCV 2017) of the most probable tumour class.

    Args:
        model: see :func:`training.model.build`.
        scaled: slices as the network takes them, float32 (N, H, W).
        recipe: the model's.

    Returns:
        float32 (N, h, w), 0 to 1, where 1 is the slice's own highest cell; all 0 where no cell
        speaks for that class.
    """
    with tf.GradientTape() as tape:
        # What is watched is what comes after it, whether or not its weights learn.
        tape.watch(scaled)
        raw = model.get_layer(NETWORK)(scaled, training=False)
        is_tumor = tf.constant([name in recipe.tumor_classes for name in recipe.classes])
        logits = tf.where(is_tumor, raw[LOGITS], float("-inf"))
        highest = tf.reduce_sum(tf.reduce_max(logits, axis=-1))
    gradients = tape.gradient(highest, raw[FEATURES])
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * raw[FEATURES], axis=-1))
    peak = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, peak)
