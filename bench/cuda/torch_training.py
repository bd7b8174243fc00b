"""Training steps of SISA and of the Transformer in PyTorch, written from the equations of arXiv 2606.02332 as its code
runs them: parameters in bfloat16, importance folded into queries and keys, one stock attention call.

    python3 torch_training.py '{"kind": "sisa", "attention": "cudnn", "microBatch": 16, ...}'

Prints one line of JSON: milliseconds of a step in each row of steps, and the largest memory.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
}


def rotate(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, o):
        super().__init__()
        M, H, S, Fw = o["width"], o["heads"], o["stateWidth"], o["feedForwardWidth"]
        linear = lambda i, j: nn.Linear(i, j, bias=False)
        self.heads, self.state, self.sisa = H, S, o["kind"] == "sisa"
        self.attn_norm, self.ffn_norm = nn.RMSNorm(M, 1e-6), nn.RMSNorm(M, 1e-6)
        self.W_Q, self.W_K, self.W_V, self.W_O = (linear(M, M) for _ in range(4))
        if self.sisa:
            self.W_B, self.W_C = linear(M, H * S), linear(M, H * S)
            self.theta, self.alpha = linear(M, H * S // 2), nn.Linear(M, H)
            nn.init.constant_(self.alpha.bias, -5)
            self.lambda_raw = nn.Parameter(torch.full((H,), -1.0))
        self.gate, self.up, self.down = linear(M, Fw), linear(M, Fw), linear(Fw, M)

    def forward(self, x, cos, sin):
        B, T, M = x.shape
        H, D = self.heads, M // self.heads
        h = self.attn_norm(x)
        split = lambda y: y.view(B, T, H, -1).transpose(1, 2)
        q, k, v = rotate(split(self.W_Q(h)), cos, sin), rotate(split(self.W_K(h)), cos, sin), split(self.W_V(h))
        if self.sisa:
            c, b = split(self.W_C(h)).float(), split(self.W_B(h)).float()
            g = (-F.softplus(self.alpha(h).float())).cumsum(1).transpose(1, 2)
            phi = split(self.theta(h)).float().cumsum(2)
            middle = (g.amax(2, keepdim=True) + g.amin(2, keepdim=True)) / 2
            decay = (g - middle).clamp(-11, 11).unsqueeze(-1)
            factor = (D**0.25 * F.softplus(self.lambda_raw.float()).sqrt()).view(1, H, 1, 1)
            pc, ps = phi.cos(), phi.sin()
            q = torch.cat((q, (rotate(c, pc, ps) * decay.exp() * factor).to(q.dtype)), -1)
            k = torch.cat((k, (rotate(b, pc, ps) * (-decay).exp() * factor).to(k.dtype)), -1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=D**-0.5)
        x = x + self.W_O(y.transpose(1, 2).reshape(B, T, M))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self, o):
        super().__init__()
        D, T = o["width"] // o["heads"], o["sequenceLength"]
        self.embed = nn.Embedding(o["vocabularySize"], o["width"])
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(o) for _ in range(o["layers"]))
        self.final_norm = nn.RMSNorm(o["width"], 1e-6)
        angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D // 2) / (D // 2))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, ids, targets):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.final_norm(x), self.embed.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def main():
    o = json.loads(sys.argv[1])
    torch.manual_seed(0)
    model = Model(o).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    compiled = torch.compile(model)
    shape = (o["microBatch"], o["sequenceLength"] + 1)
    batches = [torch.randint(o["vocabularySize"], shape, device="cuda") for _ in range(o["steps"])]

    def row(count):
        for step in range(count):
            ids = batches[step]
            loss = compiled(ids[:, :-1], ids[:, 1:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    times = []
    with sdpa_kernel(BACKENDS[o["attention"]]):
        row(min(o["warmUp"], o["steps"]))
        for _ in range(o["rows"]):
            torch.cuda.synchronize()
            start = time.perf_counter()
            loss = row(o["steps"])
            times.append((time.perf_counter() - start) * 1e3 / o["steps"])
    print(json.dumps({"milliseconds": times, "peakBytes": torch.cuda.max_memory_allocated(), "loss": loss, "torch": torch.__version__}))


main()
