"""CLAM: gated attention whose extremes also train classifiers of tiles.

Shapes: N tiles of a bag, D features, H hidden, A attention width, O outputs, R attention branches,
K tiles at one end of the attention, T tiles that count for an output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayfed_hn.models.attention import GatedPooling
from rayfed_hn.models.masks import Masks
from rayfed_hn.models.site_model import BagTarget

BAG_WEIGHT = 0.7  # of the bag's loss; the rest is the tiles'
MOST_TILES = 8  # at either end of the attention


class _CLAM(GatedPooling):
    """What both variants share: the objective.

    For an output that the bag is a positive example of, the K = min(8, N // 2) tiles with the
    highest attention are positive examples and the K with the lowest are negative ones; for another
    output, where absent ones count, the K highest are negative ones. c_o is the mean cross-entropy
    of output o's two-way classifier on its tiles; objective = .7 bag loss + .3 mean_o c_o, the mean
    over outputs that have examples. With no such output it is .7 bag loss, so that bags keep their
    weights among each other; where the task has no classes it is the bag loss.

    Tiles are chosen by one stable sort: a tile is never at both ends, and ties go by the order of
    tiles. The choice has no gradient.
    """

    def _classify(self, hidden_NH: Tensor, scores_NR: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def forward(self, features_ND: Tensor, generator: Masks | None = None) -> tuple[Tensor, Tensor]:
        hidden_NH = self._hidden(features_ND, generator)
        return self._classify(hidden_NH, self._scores(hidden_NH, generator))

    def objective(
        self, features_ND: Tensor, target: BagTarget, generator: Masks | None = None
    ) -> Tensor:
        """.7 bag loss + .3 instance loss, a scalar; without classes the bag loss alone."""
        hidden_NH = self._hidden(features_ND, generator)
        scores_NR = self._scores(hidden_NH, generator)
        bag_loss = target.loss(self._classify(hidden_NH, scores_NR)[0])
        if target.present_O is None:
            return bag_loss
        instance_loss = self._instance_loss(
            hidden_NH, scores_NR, target.present_O, target.absent_counts
        )
        return BAG_WEIGHT * bag_loss + (1 - BAG_WEIGHT) * instance_loss

    def _instance_loss(
        self,
        hidden_NH: Tensor,
        scores_NR: Tensor,
        present_O: tuple[bool | None, ...],
        absent_counts: bool,
    ) -> Tensor:
        count = min(MOST_TILES, len(hidden_NH) // 2)
        order_NR = torch.sort(scores_NR.detach(), dim=0, descending=True, stable=True).indices
        order_NO = order_NR.expand(-1, len(present_O))
        losses = []
        for output, present in enumerate(present_O):
            if count == 0 or present is None or not (present or absent_counts):
                continue
            tiles_T = order_NO[:count, output]
            if present:
                tiles_T = torch.cat([tiles_T, order_NO[-count:, output]])
            logits_T2 = self._tile_logits(hidden_NH.index_select(0, tiles_T))[:, output]
            positive_T = (torch.arange(len(tiles_T), device=tiles_T.device) < count) & present
            losses.append(F.cross_entropy(logits_T2, positive_T.long()))
        return torch.stack(losses).mean() if losses else hidden_NH.new_zeros(())

    def _tile_logits(self, hidden_TH: Tensor) -> Tensor:
        """Two-way logits (T, O, 2): no example of the output, or one."""
        return self.classifier["instance"](hidden_TH).unflatten(-1, (-1, 2))

    def _add_classifiers(self, num_outputs: int, hidden_dim: int) -> None:
        self.classifier = nn.ModuleDict(
            {
                "bag": nn.Linear(hidden_dim, num_outputs),
                "instance": nn.Linear(hidden_dim, 2 * num_outputs),
            }
        )


class CLAMSingleBranch(_CLAM):
    """CLAM with one attention for all outputs (CLAM-SB).

    Logits and attention are gated attention's: a_n = w . (tanh(V h_n) * sigmoid(U h_n)) with
    dropout on both branches; alpha = softmax(a); logits = W2 sum_n alpha_n h_n + b2. With
    D, H, A, O = 1024, 512, 256, 2 it has 790,791 parameters, of which 2,052 are the classifiers of
    tiles.

    Sources: Lu et al. 2021 (Data-efficient and weakly supervised computational pathology on
    whole-slide images, Nat Biomed Eng) and its code. Ours differs: the paper trains the classifiers
    of tiles with a smooth SVM loss, here it is cross-entropy (the default of the code); K shrinks
    with small bags, which the code refuses; several outputs may be present; the code chooses each
    end apart, so that tied tiles can be at both; classifiers of one kind are one layer, so that
    they start a little smaller.
    """

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self._add_attention(hidden_dim, attention_dim, branches=1)
        self._add_classifiers(num_outputs, hidden_dim)

    def _classify(self, hidden_NH: Tensor, scores_NR: Tensor) -> tuple[Tensor, Tensor]:
        attention_N = torch.softmax(scores_NR.squeeze(-1), dim=0)
        return self.classifier["bag"](attention_N @ hidden_NH), attention_N


class CLAMMultiBranch(_CLAM):
    """CLAM with an attention and a classifier for every output apart (CLAM-MB).

    a_no = w_o . (tanh(V h_n) * sigmoid(U h_n)) with dropout on both branches;
    alpha_o = softmax(a_o); z_o = sum_n alpha_no h_n; logits_o = c_o . z_o + b_o. Tiles for output o
    are chosen by alpha_o. With D, H, A, O = 1024, 512, 256, 2 it has 791,048 parameters.

    Sources and differences: those of :class:`CLAMSingleBranch`. The attention returned is the mean
    of the outputs' ones; CLAM's heatmaps show that of the predicted class.
    """

    def _add_layers(self, num_outputs: int, hidden_dim: int, attention_dim: int) -> None:
        self._add_attention(hidden_dim, attention_dim, branches=num_outputs)
        self._add_classifiers(num_outputs, hidden_dim)

    def _classify(self, hidden_NH: Tensor, scores_NR: Tensor) -> tuple[Tensor, Tensor]:
        attention_ON = torch.softmax(scores_NR.T, dim=1)
        pooled_OH = attention_ON @ hidden_NH
        logits_OO = self.classifier["bag"](pooled_OH)  # every output's classifier on every mean
        return logits_OO.diagonal(), attention_ON.mean(dim=0)
