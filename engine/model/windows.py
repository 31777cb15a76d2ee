"""Division of a grid of tokens into attention windows and back, for the image encoders that use windows."""

from torch import Tensor


def cut_windows(grid_BHWX: Tensor, side: int, padding: Tensor) -> Tensor:
    """Divide a grid of tokens into windows [B * windows, side, side, X].

    The grid is padded on the right and below with the vector `padding` [X]. The windows have the grid's dtype, since a
    float32 `padding` would double the size of bfloat16 windows.
    """
    batch, height, width, channels = grid_BHWX.shape
    rows, columns = -(-height // side), -(-width // side)
    if (rows * side, columns * side) != (height, width):
        padded_BHWX = padding.to(grid_BHWX.dtype).expand(batch, rows * side, columns * side, channels).clone()
        padded_BHWX[:, :height, :width] = grid_BHWX
        grid_BHWX = padded_BHWX
    return (
        grid_BHWX.reshape(batch, rows, side, columns, side, channels)
        .transpose(2, 3)
        .reshape(batch * rows * columns, side, side, channels)
    )


def join_windows(windows_BHWC: Tensor, grid_BHW: tuple[int, ...]) -> Tensor:
    """Join windows from `cut_windows` into a grid [B, H, W, C] of size `grid_BHW`, and remove the padding."""
    batch, height, width = grid_BHW
    side = windows_BHWC.shape[1]
    rows, columns = -(-height // side), -(-width // side)
    grid = windows_BHWC.unflatten(0, (batch, rows, columns)).transpose(2, 3)
    return grid.reshape(batch, rows * side, columns * side, -1)[:, :height, :width]
