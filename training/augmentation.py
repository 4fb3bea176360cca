"""Random changes to a batch of slices: one affine warp with one interpolation, then grey levels."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from training.recipe import Augmentation


def augment(slices: Any, seed: Any, *, settings: Augmentation, resolution: int) -> Any:
    """Changes each slice of a batch on its own, reproducibly.

    Args:
        slices: uint8 (N, H, W), H equal to W.
        seed: int32 (2,); equal seeds give equal results.
        settings: ranges of the changes.
        resolution: side of the result in pixels; scaling to it is part of the same warp.

    Returns:
        float32 (N, resolution, resolution), 0 to 255; what the warp brings in from outside is black.
    """
    count, side = tf.shape(slices)[0], slices.shape[1]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 7))

    def draw(number: int, reach: float) -> Any:
        return tf.random.stateless_uniform((count,), seeds[number], -reach, reach)

    angle = draw(0, math.radians(settings.rotation_degrees))
    zoom = 1.0 + draw(1, settings.zoom)
    mirror = tf.ones((count,))
    if settings.flip_horizontal:
        mirror = tf.where(draw(2, 1.0) < 0, -1.0, 1.0)
    shift_x, shift_y = draw(3, settings.shift) * side, draw(4, settings.shift) * side
    transforms = _transforms(angle, zoom, mirror, shift_x, shift_y, side, resolution)
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(slices, tf.float32)[..., None],
        transforms=transforms,
        output_shape=tf.constant([resolution, resolution]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )[..., 0]
    mean = tf.reduce_mean(warped, axis=(1, 2), keepdims=True)
    contrast = 1.0 + draw(5, settings.contrast)[:, None, None]
    brightness = 255.0 * draw(6, settings.brightness)[:, None, None]
    # Black stays black: the background of a slice is air at any brightness.
    lit = tf.where(warped > 0, (warped - mean) * contrast + mean + brightness, 0.0)
    return tf.clip_by_value(lit, 0.0, 255.0)


def _transforms(
    angle: Any, zoom: Any, mirror: Any, shift_x: Any, shift_y: Any, side: int, resolution: int
) -> Any:
    """Rows [a, b, c, d, e, f, 0, 0] that map output pixels to input pixels, (N, 8)."""
    scale = side / resolution / zoom
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    # Pixel centres lie at half-integers: output centre maps to input centre plus the shift.
    out_centre, in_centre = (resolution - 1) / 2, (side - 1) / 2
    a, b, d, e = cosine * mirror, -sine, sine * mirror, cosine
    c = in_centre + shift_x - (a + b) * out_centre
    f = in_centre + shift_y - (d + e) * out_centre
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)


def dataset(
    slices: Any,
    labels: Any,
    order: Any,
    batch_size: int,
    transform: Callable[[Any, Any], Any],
    seed: tuple[int, int],
) -> tf.data.Dataset:
    """Batches of one epoch.

    Args:
        slices: uint8 (M, H, W).
        labels: float32 (M, classes).
        order: indices in the order in which they are seen.
        batch_size: of every batch but perhaps the last.
        transform: batch of slices and a seed to model input.
        seed: run's seed and epoch; the batch's number is added.
    """
    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()

    def load(number: Any, indices: Any) -> tuple[Any, Any]:
        key = tf.stack([seed[0], seed[1] * 100_000 + tf.cast(number, tf.int32)])
        return transform(tf.gather(slices, indices), key), tf.gather(labels, indices)

    return batches.map(load, num_parallel_calls=2, deterministic=True).prefetch(2)
