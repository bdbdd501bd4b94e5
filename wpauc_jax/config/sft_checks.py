"""Which settings of SFT go together. A setting that has no effect beside another one is refused, never ignored."""

from typing import Any

from wpauc_jax.config.fields import ConfigError
from wpauc_jax.config.useless import Useless, refuse_useless


def _only(field: str, *names: str, **values: Any) -> Useless:
    """Settings that the losses `names` alone read."""
    what = " or ".join(repr(name) for name in names)
    return Useless(lambda sft: getattr(sft, field) not in names, f"sft.{field} is another one than {what}", "", values)


USELESS = (
    Useless(lambda sft: not sft.prefix_loss, "sft.prefix_loss=0", "", {"prefix_eta": 1.0}),
    _only("objective", "gbce", "bpr", "llpauc", negatives=256),
    _only("objective", "gbce", calibration=0.75),
    _only("objective", "sl_at_k", "pairwise", target_k=3),
    _only("objective", "sl_at_k", softness=1.0),
    _only("objective", "pairwise", temperature=1.0),
    _only("objective", "opauc", "llpauc", beta=0.1),
    _only("objective", "llpauc", alpha=0.5),
    _only("objective", "self_hard", hard_weight=0.1, hard_ratio=1.0, hard_layers=1, distillation=0.1),
)


def check_sft(sft: Any) -> None:
    """Raises ConfigError for settings of SFT that cannot go together, or of which one has no effect."""
    refuse_useless(sft, "sft", USELESS)
    if sft.objective != "cross_entropy" and (sft.loss != "catalog" or sft.label_smoothing or sft.prefix_loss):
        raise ConfigError(
            f"sft.objective={sft.objective!r} needs sft.loss='catalog', sft.label_smoothing=0 and sft.prefix_loss=0 "
            f"(they are {sft.loss!r}, {sft.label_smoothing} and {sft.prefix_loss}), which are about cross-entropy"
        )
    if sft.label_smoothing and sft.loss != "catalog":
        raise ConfigError(
            f"sft.label_smoothing={sft.label_smoothing} needs sft.loss='catalog' (it is {sft.loss!r}): it is "
            "shared among the tokens that go on to an item"
        )
    if sft.prefix_loss and (sft.loss != "catalog" or sft.label_smoothing):
        raise ConfigError(
            f"sft.prefix_loss={sft.prefix_loss} needs sft.loss='catalog' (it is {sft.loss!r}) and "
            f"sft.label_smoothing=0 (it is {sft.label_smoothing}): it is made of the plain losses of items' tokens"
        )
    if sft.prefix_loss and sft.microbatches > 1:
        raise ConfigError(
            f"sft.prefix_loss={sft.prefix_loss} needs sft.microbatches=1 (it is {sft.microbatches}): its weights "
            "look at the whole batch"
        )
    if sft.objective == "llpauc" and sft.microbatches > 1:
        raise ConfigError(
            f"sft.objective='llpauc' needs sft.microbatches=1 (it is {sft.microbatches}): which targets and negatives "
            "are on top is a matter of the whole batch"
        )
