"""The model in PyTorch with `scaled_dot_product_attention` and `torch.optim.Adam`, eager or through `torch.compile`."""

import importlib
import itertools
from typing import Any

import numpy as np

from attn.models.classifier import ClassifierConfig
from experiments.machine import devices
from scripts.contenders.workload import Contender, Workload, output_dim

torch: Any = importlib.import_module("torch")  # part of the extra "peers"
nn = torch.nn
attention = nn.functional.scaled_dot_product_attention


def eager(workload: Workload) -> Contender:
    return _contender(workload, compiled=False)


def compiled(workload: Workload) -> Contender:
    return _contender(workload, compiled=True)


def _contender(workload: Workload, compiled: bool) -> Contender:
    torch.set_num_threads(devices.cores())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(workload.model).to(device)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), workload.config.learning_rate, eps=1e-7)
    tokens, labels = (torch.from_numpy(x.astype(np.int64)).to(device) for x in (workload.tokens, workload.labels))
    batches = list(zip(*(x.split(workload.config.batch_size) for x in (tokens, labels)), strict=True))

    def train() -> float:
        model.train()
        loss = torch.zeros(())
        for batch_tokens, batch_labels in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(run(batch_tokens), batch_labels)
            loss.backward()
            optimizer.step()
        return loss.item()  # waits for the device

    def evaluate() -> float:
        model.eval()
        total = torch.zeros(2, device=device)
        with torch.no_grad():
            for batch_tokens, batch_labels in batches:
                logits = run(batch_tokens)
                loss = nn.functional.cross_entropy(logits, batch_labels, reduction="sum")
                total += torch.stack([loss, (logits.argmax(-1) == batch_labels).sum()])
        return total[0].item()

    return Contender(sum(parameter.numel() for parameter in model.parameters()), train, evaluate)


class SingleHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Any) -> Any:
        x = x.unsqueeze(1)
        return attention(self.scale * x, x, x, scale=1.0).squeeze(1)


class MultiHead(nn.Module):
    def __init__(self, config: ClassifierConfig, dim: int, outer: int):
        super().__init__()
        self.split = (config.num_heads, config.key_dim)
        inner = config.num_heads * config.key_dim
        self.query, self.key, self.value = (nn.Linear(dim, inner) for _ in range(3))
        self.output = nn.Linear(inner, outer)

    def forward(self, x: Any) -> Any:
        heads = (project(x).unflatten(-1, self.split).transpose(1, 2) for project in (self.query, self.key, self.value))
        return self.output(attention(*heads).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config: ClassifierConfig, dim: int):
        super().__init__()
        self.attention = MultiHead(config, dim, dim)
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.inner, self.outer = nn.Linear(dim, config.feedforward_dim), nn.Linear(config.feedforward_dim, dim)
        self.drop1, self.drop2 = (nn.Dropout(config.dropout_rate) for _ in range(2))

    def forward(self, x: Any) -> Any:
        x = self.norm1(x + self.drop1(self.attention(x)))
        return self.norm2(x + self.drop2(self.outer(self.inner(x).relu())))


class Model(nn.Module):
    """The classifier, built from PyTorch's own modules."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary_size, config.embed_dim)
        self.positions = nn.Embedding(config.max_length, config.embed_dim) if config.positions == "learned" else None
        dims = [config.embed_dim, *(output_dim(config, index) for index in range(config.num_layers))]
        self.layers = nn.ModuleList(_layer(config, *pair) for pair in itertools.pairwise(dims))
        self.drop = nn.Dropout(0.0 if config.body == "transformer" else config.dropout_rate)
        self.logits = nn.Linear(dims[-1], config.num_classes)

    def forward(self, tokens: Any) -> Any:
        x = self.tokens(tokens)
        if self.positions is not None:
            x = x + self.positions.weight
        for layer in self.layers:
            x = self.drop(layer(x))
        return self.logits(x.mean(1))


def _layer(config: ClassifierConfig, dim: int, outer: int) -> Any:
    if config.body == "attention":
        return SingleHead()
    return MultiHead(config, dim, outer) if config.body == "multi_head" else Block(config, dim)
