"""A console's picture as the square frame that models see."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray


def fit_frame(screen: NDArray[np.uint8], size: int, fit: Literal["pad", "stretch"]) -> NDArray[np.uint8]:
    """A picture uint8 [H', W', 3] as a square uint8 [size, size, 3], by area averaging.

    `pad` keeps the aspect ratio of the pixels by centring the picture on black; `stretch` fills the square.
    """
    if fit == "pad":
        height, width = screen.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + height, left : left + width] = screen
        screen = square
    return cv2.resize(screen, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
