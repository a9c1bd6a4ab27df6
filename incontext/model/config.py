"""Config: the shape of a model, and the shapes that have names."""

from collections.abc import Callable
from dataclasses import dataclass

from incontext.model.votes.backbone import VARIANTS

VOTING_FIELDS = ("backbone", "match_heads", "match_dim", "mixer", "mixer_blocks", "mixer_summary")
# Of what reads answers, and its tensors: what a prompt means does not depend on them.
READING_FIELDS = ("presence_width", "quality_width", "calibration")
READING_PARTS = ("presence.", "quality.")


@dataclass(frozen=True)
class Config:
    """Shape of a model. The defaults are the official ViT-L checkpoint.

    Raises ValueError, naming the field, for a shape that no model can have.
    """

    image_size: int = 448  # height and width of half a canvas, pixels
    patch_size: int = 16  # pixels
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    decoder_dim: int = 64
    position_grid: int = 14  # the absolute position table is this many rows and columns
    relative_position: bool = True
    merge_after: int = 2  # the streams are averaged after the block of this index
    taps: tuple[int, ...] = (5, 11, 17, 23)  # blocks whose features the decoder reads
    layer_norm_eps: float = 1e-6
    example_attention: str = "joint"  # or "independent"
    stem: tuple[int, ...] = ()  # widths at strides 2, 4, …; empty: plain patch embedding
    stem_blocks: int = 2  # residual blocks a stage
    copy_heads: int = 0  # 0: no copy path
    copy_dim: int = 32
    backbone: str = ""  # frozen pretrained network of a voting model; "": a token model
    match_heads: int = 6  # of the learned matching; this and below: with a backbone only
    match_dim: int = 24
    mixer: tuple[int, ...] = (96, 48, 16)  # widths at strides 8, 4, 2
    mixer_blocks: int = 2  # residual blocks after the query's votes on itself
    mixer_summary: bool = False  # a summary of the whole query corrects every cell
    presence_width: int = 0  # of the head that says if an id is in the query; 0: none
    quality_width: int = 0  # of the head that says how good a mask is; 0: none
    calibration: tuple[float, ...] = (1.0, 0.0)  # slope and offset of a painting's logits
    # Normalization of RGB in 0–1; travels with the weights.
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        def check(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"Config: {message}")

        sizes = ("image_size", "patch_size", "embed_dim", "depth", "num_heads", "decoder_dim",
                 "position_grid")  # fmt: skip
        for name in sizes:
            check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; accepted: 1 or more")
        check(len(self.mean) == len(self.std) == 3, "mean and std need three values each")
        check(min(self.std) > 0, f"std {self.std} must be positive")
        check(len(self.calibration) == 2, f"calibration {self.calibration} needs two numbers")
        check(not self.copy_heads or self.copy_dim > 3, "copy_dim must be more than 3, the colors")
        check(
            all(width >= 8 and width % 8 == 0 for width in self.stem),
            f"stem widths {self.stem} must be multiples of 8",
        )
        check(
            self.example_attention in ("joint", "independent"),
            f"example_attention is {self.example_attention!r}; accepted: joint, independent",
        )
        check(
            self.image_size % self.patch_size == 0,
            f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}",
        )
        check(
            self.embed_dim % self.num_heads == 0,
            f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}",
        )
        check(0 <= self.merge_after < self.depth, "merge_after must name one of the blocks")
        check(
            bool(self.taps) and all(self.merge_after <= t < self.depth for t in self.taps),
            f"taps {self.taps} must name blocks from merge_after on",
        )
        check(
            not self.stem or 2 ** len(self.stem) == self.patch_size,
            f"a stem of {len(self.stem)} stages needs patch_size {2 ** len(self.stem)}",
        )
        check(
            not self.copy_heads or len(self.stem) >= 2,
            "a copy path needs a stem of two stages or more (it works at stride 4)",
        )
        if self.backbone:
            self._check_voting(check)
        check(
            not (self.relative_position and self.example_attention == "independent"),
            "relative_position is defined on a whole canvas: joint attention only",
        )

    def _check_voting(self, check: Callable[[bool, str], None]) -> None:
        """Check the fields that a voting model needs along with its backbone."""
        check(
            self.backbone in VARIANTS,
            f"backbone is {self.backbone!r}; accepted: {', '.join(VARIANTS)}",
        )
        check(
            len(self.mixer) == 3 and all(w >= 8 and w % 8 == 0 for w in self.mixer),
            f"mixer {self.mixer} needs three widths that are multiples of 8",
        )
        for name in ("match_heads", "match_dim", "mixer_blocks", "copy_heads"):
            check(
                getattr(self, name) >= 1,
                f"{name} is {getattr(self, name)}; accepted beside a backbone: 1 or more",
            )
        check(len(self.stem) == 3, f"a backbone needs a stem of three stages, not {self.stem}")


SIZES: dict[str, Config] = {
    "votes": Config(
        image_size=224,
        patch_size=8,
        relative_position=False,
        example_attention="independent",
        stem=(32, 64, 128),
        copy_heads=4,
        backbone="efficientnet-lite0",
    ),
    "vit-large": Config(),
    "small": Config(
        image_size=160,
        patch_size=8,
        embed_dim=192,
        depth=6,
        num_heads=6,
        mlp_ratio=3.0,
        decoder_dim=64,
        position_grid=16,
        relative_position=False,
        merge_after=1,
        taps=(3, 5),
        example_attention="independent",
        stem=(32, 64, 128),
        copy_heads=4,
    ),
    "tiny": Config(
        image_size=32,
        patch_size=8,
        embed_dim=32,
        depth=12,
        num_heads=2,
        decoder_dim=16,
        position_grid=8,
        taps=(2, 5, 8, 11),
    ),
}
