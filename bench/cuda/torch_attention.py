"""Causal attention in PyTorch through cuDNN, forward and backward, with queries and keys wider than values.

    python3 torch_attention.py '{"batches": 16, "length": 2048, "heads": 12, "keyWidth": 96, "width": 64, "runs": 20}'

Prints one line of JSON: medians of five times as many runs in a row, each in milliseconds, {"forward": ..., "backward": ...}.
"""
import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

o = json.loads(sys.argv[1])


def tensor(width):
    x = torch.randn(o["batches"], o["length"], o["heads"], width, device="cuda", dtype=torch.bfloat16)
    return x.transpose(1, 2).requires_grad_()


def median(run):
    times = []
    for n in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(o["runs"]):
            run()
        end.record()
        torch.cuda.synchronize()
        if n >= 1:
            times.append(start.elapsed_time(end) / o["runs"])
    return sorted(times)[len(times) // 2]


q, k, v, gradient = tensor(o["keyWidth"]), tensor(o["keyWidth"]), tensor(o["width"]), tensor(o["width"]).detach()
with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
    attend = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with torch.no_grad():
        forward = median(attend)
    y = attend()
    backward = median(lambda: torch.autograd.grad(y, (q, k, v), gradient, retain_graph=True))
print(json.dumps({"forward": forward, "backward": backward}))
