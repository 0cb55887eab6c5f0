"""Attention maps of a model of pictures, as overlays in a PNG, a page and the terminal."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from regard.attention.check import show
from regard.errors import ConfigError, nearest
from regard.layers.evaluation import in_evaluation
from regard.lens.token_maps import token_attention, token_relevance, token_rollout, trace
from regard.vision.pictures import Pixels

ATTENTION, ROLLOUT, GRADIENT, GRAD_CAM = "attention", "rollout", "attention x gradient", "Grad-CAM"
OPACITY = 0.65  # of the map over the picture where its weight is largest
LOW, HIGH = np.array([0.0, 0.13, 0.3]), np.array([1.0, 0.91, 0.27])  # ends of cividis
CELL, MARGIN, LABEL = 224, 8, 18  # pixels of the PNG
COLUMNS = 48  # of the terminal


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PictureMaps:
    """Maps over the patches of a picture.

    Args:
        pixels: (H, W, 3) uint8, as the model reads the picture.
        attention: (layers, heads, h, w): what the class token's query attends to among the patches; without a class
            token, what all queries attend to in the mean.
        maps: by method, (h, w): "rollout", and with a classifier "attention x gradient" for its label; without a class
            token "Grad-CAM".
        label: that the model gives the picture, or its caption; "" without either.
        probability: of the label; 0 of a caption.
        layer_names: names of the first axis of `attention`, such as a caption's words; by default numbers of layers.
        first: method that is shown first.
    """

    pixels: Pixels
    attention: Tensor
    maps: Mapping[str, Tensor]
    label: str = ""
    probability: float = 0.0
    layer_names: tuple[str, ...] = ()
    first: str = ROLLOUT

    def map(self, method: str | None = None, *, layer: int | None = None, head: int | None = None) -> Tensor:
        """Attention map over the patches.

        Args:
            method: "attention" or one of `maps`; by default, the first.
            layer, head: of "attention", counted from 1; the last layer and the mean of all heads by default.

        Returns:
            (h, w), not below 0.

        Raises:
            ConfigError: an unknown method, layer or head.
        """
        method = self.first if method is None else method
        if method != ATTENTION:
            if method not in self.maps:
                raise ConfigError(f"no map {method!r}; {nearest(method, [ATTENTION, *self.maps])}")
            return self.maps[method]
        layers, heads = self.attention.shape[:2]
        for name, number, maximum in (("layer", layer, layers), ("head", head, heads)):
            if number is not None and not (type(number) is int and 1 <= number <= maximum):
                raise ConfigError(f"{name}={show(number)}; expected a number from 1 to {maximum}")
        chosen = self.attention[layers - 1 if layer is None else layer - 1]
        return chosen.mean(0) if head is None else chosen[head - 1]

    def png(self, file: str | Path) -> None:
        """Write the picture, each method's map, and the last layer's heads, side by side.

        Args:
            file: its path.
        """
        from PIL import Image, ImageDraw

        cells = [("picture", None)]
        cells += [(name, self.maps[name]) for name in self.maps]
        if self.layer_names:
            cells += [(name, one.mean(0)) for name, one in zip(self.layer_names, self.attention, strict=True)]
        else:
            cells += [("last layer", self.map(ATTENTION))]
            cells += [(f"head {i + 1}", self.map(ATTENTION, head=i + 1)) for i in range(self.attention.shape[1])]
        columns = min(len(cells), 5)
        rows = -(-len(cells) // columns)
        height = max(1, round(CELL * self.pixels.shape[0] / self.pixels.shape[1]))
        size = (columns * (CELL + MARGIN) + MARGIN, rows * (height + LABEL + MARGIN) + MARGIN)
        sheet = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(sheet)
        for number, (name, one) in enumerate(cells):
            x = MARGIN + number % columns * (CELL + MARGIN)
            y = MARGIN + number // columns * (height + LABEL + MARGIN)
            sheet.paste(Image.fromarray(self.overlay(one)).resize((CELL, height)), (x, y + LABEL))
            draw.text((x, y + 2), name, fill="black")
        sheet.save(file)

    def overlay(self, one: Tensor | None) -> Pixels:
        """The picture (H, W, 3) uint8 under a map (h, w), opaque in proportion to its weight; None for no map."""
        if one is None:
            return self.pixels
        height, width = self.pixels.shape[:2]
        share = one.float() / one.max().clamp(min=1e-30)
        share = nn.functional.interpolate(share[None, None], (height, width), mode="bilinear")[0, 0]
        weight = share.clamp(0, 1).numpy()[..., None]
        color = 255 * (LOW + (HIGH - LOW) * weight)
        alpha = OPACITY * (0.35 + 0.65 * weight)
        mixed: Pixels = ((1 - alpha) * self.pixels + alpha * color).round().astype(np.uint8)
        return mixed

    def page(self, file: str | Path) -> None:
        """Write one HTML file for the browser, with choices of method, layer and head; it needs no network.

        Args:
            file: its path.
        """
        from PIL import Image

        stored = io.BytesIO()
        Image.fromarray(self.pixels).save(stored, "PNG")
        layers, heads, rows, columns = self.attention.shape
        data = {
            "picture": "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode(),
            "size": [self.pixels.shape[1], self.pixels.shape[0]],
            "grid": [columns, rows],
            "layers": layers,
            "heads": heads,
            "attention": _bytes(self.attention.flatten(2)),
            "maps": {name: _bytes(x.flatten()[None]) for name, x in self.maps.items()},
            "names": list(self.layer_names),
            "label": f"{self.label}, probability {self.probability:.2f}" if self.probability else self.label,
        }
        template = (files("regard.lens") / "web" / "overlay.html").read_text(encoding="utf-8")
        title = html.escape(self.label or "What the model looks at")
        text = template.replace("{{title}}", title).replace("{{data}}", json.dumps(data).replace("<", "\\u003c"))
        Path(file).write_text(text, encoding="utf-8")

    def terminal(self, one: Tensor | None = None, *, color: bool = True) -> str:
        """The picture under a map as text: half blocks in 24-bit color, or shades without color.

        Args:
            one: (h, w); the rollout by default.
            color: whether to write escape codes of colors.

        Returns:
            The lines.
        """
        chosen = self.map() if one is None else one
        height, width = self.pixels.shape[:2]
        rows = 2 * max(1, round(COLUMNS * height / width / 2))
        if not color:
            from regard.attention.engine.draw import shade

            return shade(nn.functional.adaptive_avg_pool2d(chosen[None, None].float(), (rows // 2, COLUMNS))[0, 0])
        from PIL import Image

        small = np.asarray(Image.fromarray(self.overlay(chosen)).resize((COLUMNS, rows)))
        lines = []
        for upper, lower in zip(small[::2], small[1::2], strict=True):
            cells = zip(upper.tolist(), lower.tolist(), strict=True)
            lines.append(
                "".join(f"\x1b[38;2;{_rgb(a)};48;2;{_rgb(b)}m\N{UPPER HALF BLOCK}" for a, b in cells) + "\x1b[0m"
            )
        return "\n".join(lines)


def look_at_picture(
    module: nn.Module, inputs: Tensor, *, grid: tuple[int, int], special: int, label: int | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps of the class token over the patches of a picture.

    Args:
        module: a vision Transformer.
        inputs: (1, 3, H, W), normalized.
        grid: (h, w) of the patches.
        special: number of tokens before the patches, the class token first.
        label: whose logit the gradient is of; None for no gradient.

    Returns:
        Attention of the class token (layers, heads, h, w), and the maps by method, (h, w).

    Raises:
        ConfigError: a model without self-attention.
    """
    module, inputs = in_evaluation(module), inputs.detach().requires_grad_(label is not None)
    with torch.set_grad_enabled(label is not None), trace(module, gradients=label is not None) as calls:
        output = module(inputs)
    maps = {ROLLOUT: token_rollout(calls)[0, special:].view(grid)}
    if label is not None:
        output.logits[0, label].backward(inputs=[inputs])  # the gradients of parameters stay as they are
        maps[GRADIENT] = token_relevance(calls)[0, special:].view(grid)
    return token_attention(calls)[0, :, :, special:].unflatten(-1, grid), maps


def look_at_grid(
    module: nn.Module, inputs: Tensor, *, grid: tuple[int, int], label: int | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Maps of a convolutional network with attention over a picture.

    Args:
        module: the network; its output's `hidden` (1, h w, D) are the cells of the last feature map.
        inputs: (1, 3, H, W), normalized.
        grid: (h, w) of the last feature map.
        label: whose logit the gradient is of; None for no gradient.

    Returns:
        The mean over all queries of each attention's weights (layers, heads, h, w), those of larger feature maps summed
        to the last one's cells and those of fewer heads repeated; and "Grad-CAM" (h, w) for a label.

    Raises:
        ConfigError: a model without attention.

    Source: Selvaraju et al. 2017, "Grad-CAM", arXiv 1610.02391, section 3, equations 1 and 2.
    """
    module = in_evaluation(module)
    with torch.set_grad_enabled(label is not None), trace(module) as calls:
        output = module(inputs)
    if not calls:
        raise ConfigError("the model has no attention to show; expected one with attention, or with attention pooling")
    maps = {}
    if label is not None:
        hidden = output.hidden
        [gradient] = torch.autograd.grad(output.logits[0, label], hidden)
        maps[GRAD_CAM] = torch.relu((hidden * gradient.mean(1, keepdim=True)).sum(2))[0].detach().view(grid)
    heads = max(call.call.shape[1] for call in calls)
    layers = []
    for call in calls:
        queries, keys = call.call.shape[2:]
        mean = call.weights(torch.arange(queries))[0].mean(1)  # (heads, S)
        scale = math.isqrt(keys // (grid[0] * grid[1]))
        cells = mean.unflatten(1, (grid[0], scale, grid[1], scale)).sum((2, 4))
        layers.append(cells.repeat_interleave(heads // len(cells), 0))
    return torch.stack(layers).detach(), maps


def _bytes(maps: Tensor) -> str:
    """Maps (..., n) as bytes of 0 to 255 relative to the largest number of each, in base64."""
    share = maps / maps.amax(-1, keepdim=True).clamp(min=1e-30)
    return base64.b64encode((255 * share.clamp(0, 1)).round().byte().contiguous().numpy().tobytes()).decode()


def _rgb(color: list[int]) -> str:
    return ";".join(map(str, color))
