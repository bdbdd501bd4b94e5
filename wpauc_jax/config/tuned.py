"""The model and the training that configs/benchmarks.py says were tuned, for the configurations that begin with them.

They fit some ten thousand to a few hundred thousand interactions. An item is one token.
"""

from wpauc_jax.config.data import CatalogConfig
from wpauc_jax.config.model import ModelConfig
from wpauc_jax.config.stages import OptimConfig, RlConfig, SftConfig

CATALOG = CatalogConfig(ids="atomic")
MODEL = ModelConfig(num_layers=1, width=128, num_heads=4, num_kv_heads=4, head_dim=32, ffn_width=256)
SFT = SftConfig(
    batch_size=32,
    epochs=20,
    evals=20,
    patience=5,
    dropout=0.3,
    exclude_history=True,
    optim=OptimConfig(learning_rate=1e-3),
)
RL = RlConfig(
    rows="same",
    group_size=16,
    target_k=3,
    batch_size=64,
    epochs=1,
    optim=OptimConfig(learning_rate=2e-4, max_grad_norm=0.3),
)
