"""ImageNet with ResNet-50 (paper profile only): does a CoordConv first layer change a large classifier?"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from assay.data.images import ImageFolder
from assay.lab import Trial
from assay.nn.coords import coordconvert
from assay.nn.resnet import ResNet
from assay.studies.coordconv.common import build, parameters

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImagenetConfig:
    folder: str = ""  # holds train/<class>/*.jpg and val/<class>/*.jpg
    size: int = 224
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    epochs: int = 90
    batch: int = 256
    rate: float = 0.1
    decay: float = 1e-4
    workers: int = 8


def folders(config: ImagenetConfig) -> tuple[Path, Path]:
    """The two halves on disk; raises where they are not there."""
    both = Path(config.folder) / "train", Path(config.folder) / "val"
    if not config.folder or not all(half.is_dir() for half in both):
        raise FileNotFoundError(
            f"imagenet.folder={config.folder!r}: give a folder with train/<class>/*.jpg and val/<class>/*.jpg "
            "(--set imagenet.folder=/path/to/imagenet), or leave these arms out (--arms)"
        )
    return both


def trial(run: Trial, arm: str, config: ImagenetConfig) -> dict[str, float]:
    """One training of a residual network, with or without a CoordConv first layer."""
    halves = folders(config)
    train = ImageFolder(halves[0], config.size, augment=True)
    val = ImageFolder(halves[1], config.size)
    if train.classes != val.classes:
        raise ValueError(f"{config.folder}: train and val hold different classes")
    net = build(run, lambda: ResNet(len(train.classes), config.blocks, config.width))
    if arm.endswith("coordconv"):
        coordconvert(net, "first", coord_init="default")
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), config.rate, momentum=0.9, weight_decay=config.decay, nesterov=True
    )
    order = run.generator("batches", device="cpu")
    loader = DataLoader(
        train, config.batch, shuffle=True, generator=order, num_workers=config.workers, drop_last=True
    )
    if len(loader) == 0:
        raise ValueError(f"{halves[0]} holds {len(train)} images, fewer than one batch of {config.batch}")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * len(loader))
    mean, spread = (torch.tensor(v, device=run.device).view(3, 1, 1) for v in (MEAN, SPREAD))
    mixed = torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda")

    def prepared(images: torch.Tensor) -> torch.Tensor:
        scaled = (images.to(run.device, non_blocking=True) - mean) / spread
        return scaled.contiguous(memory_format=torch.channels_last)

    def evaluate() -> dict[str, float]:
        net.eval()
        hits, count = torch.zeros(2, device=run.device), 0
        with torch.no_grad(), mixed:
            for images, labels in DataLoader(val, config.batch, num_workers=config.workers):
                top = net(prepared(images)).topk(min(5, len(val.classes)), dim=1).indices
                right = top == labels.to(run.device)[:, None]
                hits += torch.stack([right[:, 0].sum(), right.any(1).sum()])
                count += len(labels)
        net.train()
        return dict(zip(("top1", "top5"), (hits / count).tolist(), strict=True))

    step = 0
    for _ in run.steps(config.epochs):
        for images, labels in loader:
            with mixed:
                loss = cross_entropy(net(prepared(images)), labels.to(run.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
        run.log(step, loss=loss, **evaluate())
    return evaluate() | {"parameters": parameters(net)}
