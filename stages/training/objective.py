"""GRPO's objective with one ratio for a whole output, as R1 prints it.

R1 (arXiv 2501.12948), eq. 1-3: the ratio and the KL estimator are of pi(o|q), the probability of the output, and
outputs are not divided by their length. DeepSeekMath (arXiv 2402.03300), eq. 3 and 4, has both for each token; that
form is TRL's. TRL's `importance_sampling_level="sequence"` is neither: it takes the root of the ratio (GSPO).
"""

import torch


def compute_output_loss(
    log_probs: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor | None,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    epsilon: float,
    beta: float,
) -> tuple[torch.Tensor, dict[str, float]]:
    """(loss, mean over outputs; what is logged). The first three and `mask` are (outputs, tokens).

    Probabilities of long outputs leave the range of float32 when policies differ; TRL's form does not suffer.
    """
    ratio = ((log_probs - old) * mask).sum(dim=1).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    losses = -torch.minimum(ratio * advantages, clipped * advantages)
    cut = (ratio * advantages > clipped * advantages).float()
    shown = {"clip_ratio/region_mean": cut.mean().item()}
    if reference is not None:
        difference = ((reference - log_probs) * mask).sum(dim=1)
        kl = difference.exp() - difference - 1
        losses = losses + beta * kl
        shown["kl"] = kl.mean().item()
    return losses.mean(), shown
