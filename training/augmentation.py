"""Random changes to a batch of slices: one warp with one interpolation, then grey levels."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import tensorflow as tf

from training.recipe import Augmentation

KNOTS: Final = 5
"""Of the random grey-level curve, evenly from black to white."""
PARALLEL: Final = max(2, (os.cpu_count() or 2) // 2)
"""Batches that are made at a time; the model, or what feeds it to a GPU, has the other cores."""
BEND_KNOTS: Final = 5
"""Along a side, of the random bending: between them it is smooth."""
BLUR_KERNEL: Final = (1.0, 4.0, 6.0, 4.0, 1.0)
"""Binomial weights: what they take away is the fine structure of about two pixels."""


def augment(
    slices: Any, seed: Any, *, settings: Augmentation, resolution: int, masks: Any = None
) -> Any:
    """Changes each slice of a batch on its own, reproducibly.

    Args:
        slices: uint8 (N, H, W), H equal to W.
        seed: int32 (2,); equal seeds give equal results.
        settings: ranges of the changes.
        resolution: side of the result in pixels; scaling to it is part of the same warp.
        masks: uint8 (N, H, W), which are warped along.

    Returns:
        float32 (N, resolution, resolution), 0 to 255; what the warp brings in from outside is black or
        the nearest pixel, as the settings say.
        With masks also those, float32 (N, resolution, resolution), 0 to 1.
    """
    count, side = tf.shape(slices)[0], slices.shape[1]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 8))
    # Of their own, so that the draws of recipes without them stay what they were.
    more = tf.unstack(tf.random.experimental.stateless_split(seeds[6], 2))

    def draw(number: int, reach: float) -> Any:
        return tf.random.stateless_uniform((count,), seeds[number], -reach, reach)

    angle = draw(0, math.radians(settings.rotation_degrees))
    zoom = 1.0 + draw(1, settings.zoom)
    mirror = tf.ones((count,))
    if settings.flip_horizontal:
        mirror = tf.where(draw(2, 1.0) < 0, -1.0, 1.0)
    shift_x, shift_y = draw(3, settings.shift) * side, draw(4, settings.shift) * side
    upside = tf.ones((count,))
    if settings.flip_vertical:
        upside = tf.where(tf.random.stateless_uniform((count,), more[0]) < 0.5, -1.0, 1.0)
    lean = tf.random.stateless_uniform((count,), more[1], -settings.shear, settings.shear)
    transforms = _transforms(
        _linear(angle, zoom, lean, mirror, upside, side / resolution),
        shift_x,
        shift_y,
        side,
        resolution,
    )

    corners = None
    if settings.elastic:
        # Of a seed of its own, as above.
        knots = tf.random.stateless_uniform(
            (count, BEND_KNOTS, BEND_KNOTS, 2),
            tf.random.experimental.stateless_split(more[1], 1)[0],
            -settings.elastic * side,
            settings.elastic * side,
        )
        bend = tf.image.resize(knots, (resolution, resolution), "bicubic")
        corners = _corners(transforms, bend, side)

    def warp(images: Any, fill: str) -> Any:
        if corners is not None:
            return _sampled(images, corners, fill)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32)[..., None],
            transforms=transforms,
            output_shape=tf.constant([resolution, resolution]),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode=fill,
        )[..., 0]

    warped = warp(slices, "CONSTANT" if settings.fill == "black" else "NEAREST")
    # Black stays black: the background of a slice is air at any brightness.
    air = warped <= 0
    looks = _structure(_curve(warped, settings, seeds[7]), settings, seeds[7])
    mean = tf.reduce_mean(looks, axis=(1, 2), keepdims=True)
    contrast = 1.0 + draw(5, settings.contrast)[:, None, None]
    brightness = 255.0 * draw(6, settings.brightness)[:, None, None]
    lit = tf.where(air, 0.0, (looks - mean) * contrast + mean + brightness)
    result = tf.clip_by_value(lit, 0.0, 255.0)
    return result if masks is None else (result, warp(masks, "CONSTANT") / 255.0)


class _Corner(NamedTuple):
    """One of the four pixels between which each pixel of a result lies; all are (N, h, w).

    Attributes:
        place: its index in a flattened image; of the nearest pixel where it lies outside.
        share: its share of the result.
        inside: whether it lies in the image.
    """

    place: Any
    share: Any
    inside: Any


def _corners(transforms: Any, bend: Any, side: int) -> list[_Corner]:
    """Where a warp takes pixels from.

    Args:
        transforms: rows of ImageProjectiveTransformV3's parameters, (N, 8).
        bend: pixels right and down that are added to where they lead, (N, h, w, 2).
        side: of the images, in pixels.
    """
    height, width = bend.shape[1:3]
    down, right = tf.range(height, dtype=tf.float32)[:, None], tf.range(width, dtype=tf.float32)
    # Unstacked: a slice of what was stacked loses new axes when TensorFlow (2.21) simplifies it.
    a, b, c, d, e, f = (v[:, None, None] for v in tf.unstack(transforms, axis=1)[:6])
    x, y = a * right + b * down + c + bend[..., 0], d * right + e * down + f + bend[..., 1]
    left, top = tf.floor(x), tf.floor(y)
    found = []
    for column, of_columns in ((left, left + 1.0 - x), (left + 1.0, x - left)):
        for row, of_rows in ((top, top + 1.0 - y), (top + 1.0, y - top)):
            nearest = [tf.clip_by_value(v, 0.0, side - 1.0) for v in (column, row)]
            inside = tf.equal(column, nearest[0]) & tf.equal(row, nearest[1])
            place = tf.cast(nearest[1], tf.int32) * side + tf.cast(nearest[0], tf.int32)
            found.append(_Corner(place, of_columns * of_rows, inside))
    return found


def _sampled(images: Any, corners: Sequence[_Corner], fill: str) -> Any:
    """Images (N, H, W), bilinear, at (N, h, w) places; outside black if ``fill`` is ``CONSTANT``."""
    flat = tf.reshape(images, (tf.shape(images)[0], -1))
    _, height, width = corners[0].place.shape
    result: Any = 0.0
    for corner in corners:
        share = tf.where(corner.inside, corner.share, 0.0) if fill == "CONSTANT" else corner.share
        values = tf.gather(flat, tf.reshape(corner.place, (-1, height * width)), batch_dims=1)
        result += share * tf.cast(tf.reshape(values, (-1, height, width)), tf.float32)
    return result


def _curve(images: Any, settings: Augmentation, seed: Any) -> Any:
    """Grey levels through a random piecewise linear curve, and uneven brightness."""
    count, side = tf.shape(images)[0], images.shape[1]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    if settings.curve:
        moves = tf.random.stateless_uniform(
            (count, KNOTS), seeds[0], -settings.curve, settings.curve
        )
        position = images * ((KNOTS - 1) / 255.0)
        # The sum of the hat functions of a knot's two neighbours is one: linear between the knots.
        for knot in range(KNOTS):
            share = tf.maximum(0.0, 1.0 - tf.abs(position - knot))
            images += 255.0 * moves[:, knot, None, None] * share
    if settings.shading:
        slopes = tf.random.stateless_uniform((count, 2), seeds[1], -1.0, 1.0)
        line = tf.linspace(-1.0, 1.0, side)
        tilt = slopes[:, 0, None, None] * line[:, None] + slopes[:, 1, None, None] * line[None]
        images *= 1.0 + settings.shading * tilt
    return images


def _structure(images: Any, settings: Augmentation, seed: Any) -> Any:
    """Blurs or sharpens, and adds noise."""
    count = tf.shape(images)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 5))
    if settings.blur:
        kernel = tf.constant(BLUR_KERNEL) / sum(BLUR_KERNEL)
        smooth = images[..., None]
        for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
            smooth = tf.nn.depthwise_conv2d(smooth, tf.reshape(kernel, shape), [1] * 4, "SAME")
        amount = tf.random.stateless_uniform((count, 1, 1), seeds[2], -0.5, 1.0) * settings.blur
        images += amount * (smooth[..., 0] - images)
    if settings.noise:
        amount = tf.random.stateless_uniform((count, 1, 1), seeds[3], 0.0, 255 * settings.noise)
        images += amount * tf.random.stateless_normal(tf.shape(images), seeds[4])
    return images


def _linear(angle: Any, zoom: Any, lean: Any, mirror: Any, upside: Any, scale: float) -> Any:
    """Output to input pixels about the centre, [a, b, d, e] of (N,) each: rotation, shear and flips."""
    cosine, sine = tf.cos(angle) * (scale / zoom), tf.sin(angle) * (scale / zoom)
    # Columns lean before they are turned: the shear adds to what multiplies the row.
    return (
        cosine * mirror,
        (cosine * lean - sine) * upside,
        sine * mirror,
        (sine * lean + cosine) * upside,
    )


def _transforms(linear: Any, shift_x: Any, shift_y: Any, side: int, resolution: int) -> Any:
    """Rows [a, b, c, d, e, f, 0, 0] that map output pixels to input pixels, (N, 8)."""
    # Pixel centres lie at half-integers: output centre maps to input centre plus the shift.
    out_centre, in_centre = (resolution - 1) / 2, (side - 1) / 2
    a, b, d, e = linear
    c = in_centre + shift_x - (a + b) * out_centre
    f = in_centre + shift_y - (d + e) * out_centre
    zero = tf.zeros_like(a)
    return tf.stack([a, b, c, d, e, f, zero, zero], axis=1)


def dataset(
    arrays: Any,
    order: Any,
    batch_size: int,
    transform: Callable[[Any, Any], Any],
    seed: tuple[int, int],
) -> tf.data.Dataset:
    """Batches of one epoch.

    Args:
        arrays: a structure of tensors with M rows each.
        order: indices in the order in which they are seen.
        batch_size: of every batch but perhaps the last.
        transform: such a structure of one batch's rows, and a seed, to what the model is fitted on.
        seed: run's seed and epoch; the batch's number is added.
    """
    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()

    def load(number: Any, indices: Any) -> Any:
        key = tf.stack([seed[0], seed[1] * 100_000 + tf.cast(number, tf.int32)])
        rows = tf.nest.map_structure(lambda array: tf.gather(array, indices), arrays)
        return transform(rows, key)

    # Nothing branches on a tensor's value, and AutoGraph would read all of it for a second.
    plain = tf.autograph.experimental.do_not_convert(load)
    return batches.map(plain, num_parallel_calls=PARALLEL, deterministic=True).prefetch(2)
