"""Trains a model with PyTorch on request: one JSON object a line on standard input, one answer a line on standard output.

{"command": "load", "folder": ..., "config": ..., "threads": ..., "batch": ..., "length": ..., "optimizer": ...}
    reads weights.json, weights.bin (float32), ids.bin and targets.bin (int32) -> {"session": number, "loss": ...}
{"command": "steps", "session": number, "count": n}    -> times of n training steps in seconds, by part
{"command": "forward", "session": number, "count": n}  -> times of n forward passes without gradients
{"command": "close", "session": number}
"""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message=".*NumPy.*")

import torch  # noqa: E402

from models import LanguageModel  # noqa: E402


class Session:
    def __init__(self, request: dict):
        torch.set_num_threads(request["threads"])
        folder = Path(request["folder"])
        self.model = LanguageModel(request["config"])
        self.read_weights(folder)
        shape = (request["batch"], request["length"])
        self.ids = read(folder / "ids.bin", torch.int32).reshape(shape)
        self.targets = read(folder / "targets.bin", torch.int32).reshape(shape).long()
        settings = request["optimizer"]
        self.clip = settings["clipNorm"]
        plain = [p for name, p in self.model.named_parameters() if not name.endswith("lambda_raw")]
        slow = [p for name, p in self.model.named_parameters() if name.endswith("lambda_raw")]
        rate = settings["learningRate"]
        groups = [{"params": plain}, {"params": slow, "lr": rate / 10, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=rate,
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["epsilon"],
            weight_decay=settings["weightDecay"],
            **{settings["variant"]: True},
        )

    def read_weights(self, folder: Path) -> None:
        values = read(folder / "weights.bin", torch.float32)
        index = json.loads((folder / "weights.json").read_text())
        state, offset = {}, 0
        for name, shape in index:
            count = torch.Size(shape).numel()
            state[name] = values[offset : offset + count].reshape(shape).clone()
            offset += count
        self.model.load_state_dict(state, strict=True)

    def loss(self) -> float:
        with torch.no_grad():
            return self.model(self.ids, self.targets).item()

    def step(self) -> dict:
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model(self.ids, self.targets)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        end = time.perf_counter()
        return {
            "step": end - start,
            "gradients": backward - start,
            "backward": backward - forward,
            "update": end - backward,
            "loss": loss.item(),
        }

    def forward(self) -> dict:
        start = time.perf_counter()
        with torch.no_grad():
            self.model(self.ids, self.targets)
        return {"forward": time.perf_counter() - start}


def read(file: Path, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(file.read_bytes()), dtype=dtype)


def main() -> None:
    sessions = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["command"] == "load":
            number = len(sessions)
            sessions[number] = session = Session(request)
            answer = {"session": number, "loss": session.loss(), "version": torch.__version__}
        elif request["command"] == "close":
            sessions[request["session"]] = None
            answer = {}
        else:
            session = sessions[request["session"]]
            run = session.step if request["command"] == "steps" else session.forward
            answer = {"times": [run() for _ in range(request["count"])]}
        print(json.dumps(answer), flush=True)


main()
