"""Sequential recommenders for catalogs in which an item is one token: SASRec, GRU4Rec, Caser, HSTU.

A family here turns a history into one state. How states are packed, trained and ranked does not belong here.
"""

from wpauc_jax.models.sequential.caser import Caser
from wpauc_jax.models.sequential.gru4rec import Gru4Rec
from wpauc_jax.models.sequential.hstu import Hstu
from wpauc_jax.models.sequential.sasrec import SasRec

__all__ = ["Caser", "Gru4Rec", "Hstu", "SasRec"]
