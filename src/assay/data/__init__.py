"""What studies learn from: real data that packages ship, loaders for the full sets, generators."""

from assay.data.adversarial_features import (
    UniqueFeatureAugmenter,
    add_unique_features,
    wilson_dataset,
    wilson_test_set,
)
from assay.data.batches import EpochBatches, corrupt_labels
from assay.data.bible import BibleVerses, CharCorpus, bible_text, bible_verses
from assay.data.chorales import ChoraleSet, load_chorales, synthetic_chorales
from assay.data.images import (
    BoxedImages,
    ImageFolder,
    ImageSet,
    ImageSplits,
    cifar10,
    cluttered,
    crop_and_flip,
    digits,
    fashion_mnist,
    image_folder,
    ink_boxes,
    mnist,
    mnist5k,
    scatter,
    split,
    stratified_order,
)
from assay.data.pianoroll import SILENCE, PianorollCodec, render_wav
from assay.data.shapes import NotSoClevr, Scenes, sort_of_clevr

__all__ = [
    "SILENCE",
    "BibleVerses",
    "BoxedImages",
    "CharCorpus",
    "ChoraleSet",
    "EpochBatches",
    "ImageFolder",
    "ImageSet",
    "ImageSplits",
    "NotSoClevr",
    "PianorollCodec",
    "Scenes",
    "UniqueFeatureAugmenter",
    "add_unique_features",
    "bible_text",
    "bible_verses",
    "cifar10",
    "cluttered",
    "corrupt_labels",
    "crop_and_flip",
    "digits",
    "fashion_mnist",
    "image_folder",
    "ink_boxes",
    "load_chorales",
    "mnist",
    "mnist5k",
    "render_wav",
    "scatter",
    "sort_of_clevr",
    "split",
    "stratified_order",
    "synthetic_chorales",
    "wilson_dataset",
    "wilson_test_set",
]
