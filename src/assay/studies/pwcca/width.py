"""Do wider networks converge to more similar solutions?"""

import torch

from assay.analysis import similarity_matrix
from assay.lab import Trial
from assay.optim import EnsembleOptimizer
from assay.studies.pwcca import study
from assay.studies.pwcca.config import WidthConfig
from assay.studies.pwcca.networks import build, errors, fit, inputs, layer_rows, load
from assay.studies.pwcca.noise import floor_of


@study.trial("width/*", config="width")
def width(run: Trial, arm: str, config: WidthConfig) -> dict[str, float]:
    """One group of networks whose hidden layers all have the arm's width, trained on true labels."""
    images = config.images
    units = config.widths[int(arm.partition("/")[2]) - 1]
    layers = [units_of(word, units) for word in images.layers]
    train, test = load(images, run.seed)
    x, x_test = (inputs(part.images, layers).to(run.device) for part in (train, test))
    rows, wrong, test_wrong = [], [], []
    for first in range(0, config.nets, images.at_once):
        members = range(first, min(first + images.at_once, config.nets))
        generators = [run.generator(f"network {k}", device="cpu") for k in members]
        net = build(train.images.shape[1:], layers, len(train.classes), generators, run.device)
        optimizer = EnsembleOptimizer(net.parameters(), "adam", config.rate)
        fit(net, x, train.labels.to(run.device), optimizer, generators, images.batch, run.steps(config.steps))
        rows += layer_rows(net, x, images)[-2]
        wrong.append(errors(net, x, train.labels.to(run.device)))
        test_wrong.append(errors(net, x_test, test.labels.to(run.device)))
    upper = torch.triu_indices(len(rows), len(rows), 1)
    found = {
        f"{metric}_last": float(similarity_matrix(rows, metric, distance=True)[upper[0], upper[1]].mean())
        for metric in ("pwcca", "mean_cca", "linear_cka")
    }
    floor = floor_of(rows, rows, config.permutations, run.generator("shuffles", device="cpu"))
    return found | {
        "width": float(units),
        "floor_last": floor,
        "excess_last": 1 - found["pwcca_last"] - floor,
        "fitted": float((torch.cat(wrong) == 0).double().mean()),
        "test_error": float(torch.cat(test_wrong).mean()),
    }


def units_of(word: str, units: int) -> str:
    """A layer of `build` with another width; pooling stays."""
    _, slash, stride = word.partition("/")
    return word if word == "pool" else f"{units}{slash}{stride}"
