"""MNIST's file format, read here because torchvision's reader does not notice a damaged or truncated file."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes in an idx file, gzipped or not: http://yann.lecun.com/exdb/mnist describes the format.

    Args:
        path: of the file.
        dimensions: 3 for images, 1 for labels.

    Raises:
        ValueError: for a file that is truncated, damaged or of another kind.
    """
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is truncated or damaged ({error}): get it again.") from error
    magic, start = bytes([0, 0, 8, dimensions]), 4 + 4 * dimensions
    if len(content) < start or content[:4] != magic:
        raise ValueError(
            f"{path.name} starts with the bytes {content[:4].hex(' ') or 'of no file'} instead of {magic.hex(' ')}, or "
            f"ends in its header: it is no idx file of {dimensions} dimensions, so get it again."
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"{path.name} is truncated or damaged: it holds {len(content) - start} bytes of data, and "
            f"{math.prod(shape)} by its header; get it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # a copy may be written to
