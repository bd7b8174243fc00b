"""SISA and the Transformer in PyTorch eager, written from the equations in docs: the baseline of training-vs-torch.

Parameter names are those of @sisa/core, so one set of weights serves both.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY_CLAMP = 11.0  # of form sdpa, as in the paper's code


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates interleaved pairs of the last axis: (a, b) -> (a cos - b sin, a sin + b cos)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w_gate = nn.Linear(width, hidden, bias=False)
        self.w_up = nn.Linear(width, hidden, bias=False)
        self.w_down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_down(F.silu(self.w_gate(x)) * self.w_up(x))


class Block(nn.Module):
    """Pre-norm mixer and pre-norm feed-forward, each with a residual."""

    def __init__(self, config: dict):
        super().__init__()
        width, heads, epsilon = config["width"], config["heads"], config["normEpsilon"]
        self.heads = heads
        self.attn_norm = nn.RMSNorm(width, eps=epsilon)
        self.W_Q = nn.Linear(width, width, bias=False)
        self.W_K = nn.Linear(width, width, bias=False)
        self.W_V = nn.Linear(width, width, bias=False)
        self.W_O = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=epsilon)
        self.ffn = FeedForward(width, config["feedForwardWidth"])

    def by_head(self, x: Tensor) -> Tensor:
        """[B,T,H*D] to [B,H,T,D]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, h: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B,H,T,D] of normalised h [B,T,M] and rotated queries and keys."""
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = self.attn_norm(x)
        q = rotate(self.by_head(self.W_Q(h)), cos, sin)
        k = rotate(self.by_head(self.W_K(h)), cos, sin)
        v = self.by_head(self.W_V(h))
        x = x + self.W_O(self.attend(h, q, k, v).transpose(1, 2).flatten(-2))
        return x + self.ffn(self.ffn_norm(x))


class SisaBlock(Block):
    """score_ij = q_i . k_j / sqrt(D) + lambda exp(g_i - g_j) (R(Phi_i) c_i) . (R(Phi_j) b_j)."""

    def __init__(self, config: dict):
        super().__init__(config)
        width, heads, state = config["width"], config["heads"], config["stateWidth"]
        self.form = config["form"]
        self.W_B = nn.Linear(width, heads * state, bias=False)
        self.W_C = nn.Linear(width, heads * state, bias=False)
        self.theta_proj = nn.Linear(width, heads * state // 2, bias=False)
        self.alpha_proj = nn.Linear(width, heads)
        self.lambda_raw = nn.Parameter(torch.empty(heads))

    def attend(self, h: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        phase = self.by_head(self.theta_proj(h)).cumsum(-2)  # [B,H,T,S/2]
        cos, sin = phase.cos(), phase.sin()
        c = rotate(self.by_head(self.W_C(h)), cos, sin)
        b = rotate(self.by_head(self.W_B(h)), cos, sin)
        g = -F.softplus(self.alpha_proj(h)).transpose(1, 2).cumsum(-1)  # [B,H,T]
        weight = F.softplus(self.lambda_raw)
        return self.exact(q, k, v, c, b, g, weight) if self.form == "exact" else self.sdpa(q, k, v, c, b, g, weight)

    def exact(self, q: Tensor, k: Tensor, v: Tensor, c: Tensor, b: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        decay = (g.unsqueeze(-1) - g.unsqueeze(-2)).clamp(max=0).exp()
        future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
        score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        score = score + (weight[:, None, None] * decay) * (c @ b.transpose(-1, -2))
        return score.masked_fill(future, -math.inf).softmax(-1) @ v

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor, c: Tensor, b: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        width = q.shape[-1]
        offset = (g.amax(-1, keepdim=True) + g.amin(-1, keepdim=True)) / 2
        centred = (g - offset).clamp(-DECAY_CLAMP, DECAY_CLAMP).unsqueeze(-1)
        factor = (width**0.25 * weight.sqrt())[:, None, None]
        query = torch.cat((q, factor * centred.exp() * c), dim=-1)
        key = torch.cat((k, factor * (-centred).exp() * b), dim=-1)
        return F.scaled_dot_product_attention(query, key, v, is_causal=True, scale=1 / math.sqrt(width))


class LanguageModel(nn.Module):
    """Embedding, blocks, final norm, tied head. Returns the mean cross-entropy in nats."""

    def __init__(self, config: dict):
        super().__init__()
        width = config["width"]
        self.embed = nn.Embedding(config["vocabularySize"], width)
        blocks = {"sisa": SisaBlock, "attention": Block}
        self.layers = nn.ModuleList(blocks[kind](config) for kind in config["mixers"])
        self.final_norm = nn.RMSNorm(width, eps=config["normEpsilon"])
        half = width // config["heads"] // 2
        rates = config["ropeBase"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(config["maximumLength"], dtype=torch.float64)[:, None] * rates
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        length = ids.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.linear(self.final_norm(x), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
