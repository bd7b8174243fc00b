"""Trains what a golden training file trains, with PyTorch in the numerics of the paper's code, and writes what comes out.

Weights, gradients and AdamW's moments are bfloat16, but lambda_raw, which is float32; products run under autocast; AdamW
is fused: it computes in float32 and rounds what it stores.

python paper_precision.py fixtures/sisa-train-10-steps.safetensors fixtures/sisa-train-10-steps-paper.safetensors
"""

import json
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models import LanguageModel

source, target = sys.argv[1:]
golden = safe_open(source, "pt")
metadata = golden.metadata()
sizes, training = json.loads(metadata["config"]), json.loads(metadata["training"])
mixer = "sisa" if sizes["kind"] == "sisa" else "attention"
model = LanguageModel(
    {
        "mixers": [mixer] * sizes["n_layer"],
        "vocabularySize": sizes["vocab_size"],
        "width": sizes["d_model"],
        "heads": sizes["n_head"],
        "feedForwardWidth": sizes["d_ff"],
        "stateWidth": sizes.get("d_state"),
        "form": "sdpa",
        "maximumLength": sizes["max_seq_len"],
        "ropeBase": sizes["rope_theta"],
        "normEpsilon": sizes["rms_eps"],
    }
)
initial = {name: golden.get_tensor(f"initial.{name}").float() for name, _ in model.named_parameters()}
model.load_state_dict(initial)
model.to(torch.bfloat16)
plain, slow = [], []
for name, parameter in model.named_parameters():
    if name.endswith("lambda_raw"):
        parameter.data = initial[name].clone()
        slow.append(parameter)
    else:
        plain.append(parameter)
groups = [{"params": plain}, {"params": slow, "weight_decay": training["lambda_weight_decay"]}] if slow else [{"params": plain}]
optimizer = torch.optim.AdamW(
    groups,
    lr=training["learning_rate"],
    betas=(training["beta1"], training["beta2"]),
    eps=training["eps"],
    weight_decay=training["weight_decay"],
    fused=True,
)
ids = golden.get_tensor("ids").long()
losses, norms = [], []
for step, rate in enumerate(golden.get_tensor("learning_rates").tolist()):
    for group, part in zip(optimizer.param_groups, (1, 0.1)):
        group["lr"] = rate * part
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(ids[step, :, :-1], ids[step, :, 1:])
    loss.backward()
    norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), training["clip_norm"]).item())
    losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()
final = {f"final.{name}": parameter.detach().float() for name, parameter in model.named_parameters()}
save_file({**final, "losses": torch.tensor(losses), "grad_norms": torch.tensor(norms)}, target, metadata)
