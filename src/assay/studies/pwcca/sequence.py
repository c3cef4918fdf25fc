"""A recurrent network on text: which layer settles first, and are its states related from step to step?"""

from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay._extras import require
from assay.analysis import noise_floor, pwcca, record_activations, similarity_matrix
from assay.data import CharCorpus, bible_text
from assay.lab import Trial
from assay.studies.pwcca import study
from assay.studies.pwcca.config import SequenceConfig
from assay.studies.pwcca.networks import checkpoints


def corpus(config: SequenceConfig) -> tuple[Tensor, int]:
    """Tokens of the training text and how many kinds there are."""
    if config.source == "bible":
        text = CharCorpus.of(bible_text(config.books))
        return text.ids, len(text.vocab)
    if config.source != "wikitext":
        raise ValueError(f"sequence.source is 'bible' or 'wikitext': got {config.source!r}")
    datasets = require("datasets", extra="hub")
    rows = datasets.load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="train")["text"]
    words = " <eos> ".join(rows).split()
    number = {
        word: k for k, (word, _) in enumerate(Counter(words).most_common(config.vocabulary - 1), start=1)
    }
    return torch.tensor([number.get(word, 0) for word in words]), len(number) + 1


class Reader(nn.Module):
    """Embedding, recurrent layers, and one linear layer that predicts the next token."""

    def __init__(self, tokens: int, config: SequenceConfig):
        super().__init__()
        cells = {"gru": nn.GRU, "lstm": nn.LSTM}
        if config.cell not in cells:
            raise ValueError(f"sequence.cell is 'gru' or 'lstm': got {config.cell!r}")
        sizes = [config.embedding] + [config.hidden] * config.layers
        self.embedding = nn.Embedding(tokens, config.embedding)
        self.layers = nn.ModuleList(cells[config.cell](a, b, batch_first=True) for a, b in pairwise(sizes))
        self.head = nn.Linear(config.hidden, tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, time] -> logits [batch, time, tokens]."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x, _ = layer(x)
        return self.head(x)


@study.trial("sequence/*", config="sequence")
def sequence(run: Trial, arm: str, config: SequenceConfig) -> dict[str, float]:
    """Train on windows of text; compare every layer with its final self, and positions with each other."""
    ids, tokens = corpus(config)
    held_out = ids[-(len(ids) // 10) :]
    ids = ids[: -len(held_out)]
    torch.manual_seed(run.generator("network", device="cpu").initial_seed())
    net = Reader(tokens, config).to(run.device)
    optimizer = torch.optim.Adam(net.parameters(), config.rate)
    draw = run.generator("windows", device="cpu")

    def windows(text: Tensor, count: int, generator: torch.Generator) -> Tensor:
        starts = torch.randint(len(text) - config.window, (count, 1), generator=generator)
        return text[starts + torch.arange(config.window + 1)].to(run.device)

    looks = run.generator("observations", device="cpu")
    seen, shown = windows(ids, config.rows, looks), windows(held_out, config.sequences, looks)
    names = [f"layers.{k}" for k in range(config.layers)]
    wanted = set(checkpoints(config.steps, config.checkpoints))
    history: dict[int, list[Tensor]] = {}

    def look(step: int) -> None:
        if step in wanted:
            found = record_activations(net, names, [seen[:, :-1]])
            history[step] = [found[name] for name in names]

    look(0)
    for step in run.steps(config.steps):
        text = windows(ids, config.batch, draw)
        loss = F.cross_entropy(net(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        look(step + 1)
    steps = sorted(history)
    distance = torch.zeros(len(steps), config.layers)
    for i, step in enumerate(steps):
        for j in range(config.layers):
            distance[i, j] = pwcca(history[steps[-1]][j], history[step][j], side="mean", distance=True)
        run.log(step, **{f"distance_{j + 1}": float(d) for j, d in enumerate(distance[i])})
    with torch.no_grad():
        bits = F.cross_entropy(net(shown[:, :-1]).flatten(0, 1), shown[:, 1:].flatten()) / torch.log(
            torch.tensor(2.0)
        )
    metrics = {f"area_{j + 1}": float(a) for j, a in enumerate(distance[:-1].mean(0))}
    first, last = metrics["area_1"], metrics[f"area_{config.layers}"]
    return (
        metrics
        | {"bottom_up": last - first, "bits_per_token": float(bits)}
        | positions(run, net, shown, config)
    )


def positions(run: Trial, net: Reader, shown: Tensor, config: SequenceConfig) -> dict[str, float]:
    """Similarity of the top layer's states at different positions of the same windows: 1 would be one linear map."""
    top = f"layers.{config.layers - 1}"
    states = record_activations(net, [top], [shown[:, :-1]])[top].unflatten(0, (len(shown), config.window))
    places = torch.linspace(config.window // 4, config.window - 1, 8).long().unique()
    matrix = similarity_matrix([states[:, p] for p in places])
    run.save("positions", {"places": places + 1, "similarity": matrix.float()})
    step = pwcca(states[:, -2], states[:, -1], side="mean")
    far = pwcca(states[:, int(places[0])], states[:, -1], side="mean")
    shuffles = run.generator("shuffles", device="cpu")
    floor = noise_floor(
        states[:, -2], states[:, -1], "pwcca", config.permutations, shuffles, side="mean"
    ).mean()
    return {"next_position": float(step), "far_position": float(far), "position_floor": float(floor)}
