"""Set Transformer: tiles see each other through a few inducing points, at linear cost.

Shapes: N tiles of a bag, D features, H hidden, A attention width, O outputs, I inducing points,
h heads; inside a block X queries, Y keys and a = A / h values of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayfed_hn.models.masks import Masks
from rayfed_hn.models.site_model import SiteModel

INDUCING_POINTS = 16
MOST_HEADS = 4


class AttentionBlock(nn.Module):
    """Multihead attention block: queries look at keys.

    Q, K, V = Wq x + bq, Wk y, Wv y + bv, each cut into h heads; S = softmax(Q K^T / sqrt(A / h));
    M = norm(Q + S V); out = norm(M + relu(Wo M + bo)). norm is LayerNorm without scale and shift,
    which would be vectors that start at 0. K has no bias, for the softmax would cancel it.

    Args:
        query_dim: Width of a query as it comes.
        key_dim: Width of a key as it comes.
        width: A.
    """

    def __init__(self, query_dim: int, key_dim: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_dim, width)
        self.key = nn.Linear(key_dim, width, bias=False)
        self.value = nn.Linear(key_dim, width)
        self.feed_forward = nn.Linear(width, width)
        self.width, self.num_heads = width, math.gcd(width, MOST_HEADS)

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            queries: (X, query_dim).
            keys: (Y, key_dim).

        Returns:
            What each query found (X, A), and where: (h, X, Y), which sums to one over Y.
        """
        query_XA = self.query(queries)
        query_hXa, key_hYa, value_hYa = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
            for x in (query_XA, self.key(keys), self.value(keys))
        )
        scale = math.sqrt(self.width / self.num_heads)
        attention_hXY = torch.softmax(query_hXa @ key_hYa.transpose(1, 2) / scale, dim=-1)
        found_XA = (attention_hXY @ value_hYa).transpose(0, 1).flatten(1)
        mixed_XA = self._norm(query_XA + found_XA)
        return self._norm(mixed_XA + torch.relu(self.feed_forward(mixed_XA))), attention_hXY

    def _norm(self, x_XA: Tensor) -> Tensor:
        return F.layer_norm(x_XA, (self.width,))


class InducedBlock(nn.Module):
    """Induced set attention: I points look at the tiles, then the tiles look at what these found.

    out = block2(x, block1(points, x)): 2 N I products of pairs in place of N^2.
    """

    def __init__(self, input_dim: int, width: int) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.empty(INDUCING_POINTS, width))
        self.gather = AttentionBlock(width, input_dim, width)
        self.spread = AttentionBlock(input_dim, width, width)

    def forward(self, tiles: Tensor) -> Tensor:
        """Tiles (N, A) that know of the bag, from tiles (N, input_dim)."""
        found_IA, _ = self.gather(self.points, tiles)
        return self.spread(tiles, found_IA)[0]


class SetTransformer(SiteModel):
    """A transformer whose memory grows with N, not with N^2.

    t = induced2(induced1(h)); z = block(query, dropout(t)), pooling by multihead attention with one
    learned query; logits = W2 dropout(z) + b2. Attention is the pooling's, averaged over heads: of
    tiles that have seen the others by then. 16 inducing points and 4 heads (2 or 1 where 4 do not
    divide A). With D, H, A, O = 1024, 512, 256, 2 it has 2,044,930 parameters.

    Sources: Lee et al. 2019 (Set Transformer, section 3) and its code for point clouds, from
    which come the residual around projected queries, pooling without a row-wise layer before it,
    and dropout on both sides of the pooling. Ours differs: a projection comes first; the softmax is
    scaled by the width of a head (code: by that of all heads); keys have no bias, LayerNorm (which
    the code leaves out by default) no parameters; the rate of dropout is this package's, not .5.
    """

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self.induced1 = InducedBlock(hidden_dim, attention_dim)
        self.induced2 = InducedBlock(attention_dim, attention_dim)
        self.pooling_query = nn.Parameter(torch.empty(1, attention_dim))
        self.pooling = AttentionBlock(attention_dim, attention_dim, attention_dim)
        self.classifier = nn.Linear(attention_dim, num_outputs)

    def forward(self, features_ND: Tensor, generator: Masks | None = None) -> tuple[Tensor, Tensor]:
        tiles_NA = self.induced2(self.induced1(self._hidden(features_ND, generator)))
        pooled_1A, attention_h1N = self.pooling(self.pooling_query, self._drop(tiles_NA, generator))
        logits_O = self.classifier(self._drop(pooled_1A, generator).squeeze(0))
        return logits_O, attention_h1N.mean(dim=(0, 1))
