"""The coordconv study: its measures are what they say, its arms differ as named, its large data fail clearly."""

from pathlib import Path

import pytest
import torch

from assay.data.shapes import NotSoClevr
from assay.lab import Trial, registry, runner
from assay.lab.errors import InputError
from assay.nn.coords import AddCoords, CoordConv2d, CoordConvTranspose2d
from assay.nn.painters import CoordPainter, DeconvPainter
from assay.studies.coordconv import classify, gan, harmless, imagenet, paint, regress
from assay.studies.coordconv.common import batches, checkpoints

STUDY = registry.load("coordconv")


def a_trial(folder: Path, arm: str = "a", seed: int = 100) -> Trial:
    return Trial(
        arm,
        seed,
        study="coordconv",
        profile="laptop",
        device="cpu",
        folder=folder,
        time_limit=60.0,
        report=None,
    )


def test_batches_visit_everything_once_an_epoch() -> None:
    index = torch.arange(10, 17)
    draw = batches(index, 3, torch.Generator().manual_seed(0))
    drawn = torch.cat([next(draw) for _ in range(7)])
    for epoch in drawn.split(7):
        assert torch.equal(epoch.sort().values, index)


def test_checkpoints_end_with_the_last_step() -> None:
    assert checkpoints(100, 4) == {24, 49, 74, 99}
    assert max(checkpoints(7, 20)) == 6
    assert min(checkpoints(7, 20)) >= -1


def test_boxes_and_squares_overlap_as_computed_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 4, 4]])
    b = torch.tensor([[2.0, 0, 6, 4], [3, 3, 5, 5], [0, 0, 4, 4]])
    assert harmless.box_overlap(a, b).tolist() == pytest.approx([8 / 24, 0, 1])
    inverted = torch.tensor([[3.0, 3, 1, 1]])
    assert harmless.box_overlap(inverted, a[:1]).item() == 0
    painted = torch.full((1, 1, 4, 4), -1.0)
    painted[..., :2, :2] = 1
    wanted = torch.zeros(1, 1, 4, 4)
    wanted[..., :2, 1:3] = 1
    assert paint.overlap(painted, wanted).item() == pytest.approx(2 / 6)


def test_variants_of_the_small_network_start_as_one_function() -> None:
    x = torch.rand(3, 1, 28, 28)
    outputs, counts = [], []
    for layers in ("none", "first", "all"):
        torch.manual_seed(0)
        net = harmless.small_network(10, layers)
        outputs.append(net(x))
        counts.append(sum(isinstance(layer, CoordConv2d) for layer in net))
        assert harmless.coordinate_share(net) == 0
    assert counts == [0, 1, 3]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert torch.allclose(outputs[0], outputs[2], atol=1e-6)


def test_coordinate_share_by_hand() -> None:
    net = torch.nn.Sequential(CoordConv2d(2, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([3.0, 4, 1, 2]).view(1, 4, 1, 1))
    assert harmless.coordinate_share(net) == pytest.approx((2.5 / 12.5) ** 0.5)


@pytest.mark.parametrize(
    ("arm", "layers"),
    [
        ("mnist/conv", "none"),
        ("mnist/coordconv", "first"),
        ("mnist/coordconv-all", "all"),
        ("mnist/translated-conv", "none"),
        ("mnist/translated-coordconv", "first"),
        ("detect/conv", "none"),
        ("detect/coordconv", "first"),
    ],
)
def test_arms_name_their_layers(arm: str, layers: str) -> None:
    assert harmless.layers_of(arm) == layers


def test_gan_arms_place_the_coordinates_where_they_say() -> None:
    config = gan.GanConfig(canvas=16, widths=(8, 8), refine=())
    for name, painter, stages in (
        ("coordconv", CoordPainter, 0),
        ("coordconv-g", CoordPainter, 0),
        ("deconv", DeconvPainter, 0),
        ("deconv-g", DeconvPainter, 4),
        ("deconv-d", DeconvPainter, 0),
        ("deconv-both", DeconvPainter, 4),
    ):
        net = gan.generator(name, 1, config)
        assert isinstance(net.painter, painter)
        assert sum(isinstance(layer, CoordConvTranspose2d) for layer in net.modules()) == stages
        out = net(torch.randn(3, config.latent))
        assert out.shape == (3, 1, 16, 16)
        assert out.min() >= 0
        assert out.max() <= 1
    for coords in (False, True):
        d = gan.Discriminator(16, 1, 4, coords)
        assert d(torch.rand(5, 1, 16, 16)).shape == (5, 1)
        assert any(isinstance(layer, AddCoords) for layer in d.modules()) == coords


def test_real_scenes_are_all_valid_and_cover_the_places(tmp_path: Path) -> None:
    run = a_trial(tmp_path)
    config = gan.GanConfig(data="clevr", canvas=16, radius=2, images=600)
    scenes, objects = gan.data_of(run, config)
    assert scenes.shape == (600, 3, 16, 16)
    found = gan.coverage(scenes, objects, 0.001)
    assert found["valid"] == 1
    assert found["covered"] > 200  # of 144 places times 2 shapes
    squares, objects = gan.data_of(run, gan.GanConfig())
    assert gan.coverage(squares, objects, 0.001)["covered"] == 144


def test_a_grid_is_searched_on_a_tuning_seed(tmp_path: Path) -> None:
    config = classify.ClassifyConfig(
        canvas=12,
        coord_widths=(8,),
        coord_rates=(1e-7, 2e-2),
        coord_steps=150,
        coord_batches=(16,),
        evaluations=2,
    )
    metrics = classify.trial(a_trial(tmp_path), "uniform/coordconv", config)
    assert metrics["setting"] == 1
    assert metrics["train_accuracy"] > 0.5
    assert len(classify.settings("deconv", STUDY.configure("paper").classify)) == 324
    assert len(classify.settings("coordconv", STUDY.configure("paper").classify)) == 8


def test_raw_arms_see_pixel_indices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def fit(run, setting, inputs, *rest):
        seen["inputs"] = inputs
        return setting.make(), 0.0

    monkeypatch.setattr(classify, "fit", fit)
    config = classify.ClassifyConfig(canvas=16)
    classify.trial(a_trial(tmp_path), "uniform/coordconv-raw", config)
    assert torch.equal(seen["inputs"], NotSoClevr(16).xy)
    classify.trial(a_trial(tmp_path), "uniform/coordconv", config)
    assert seen["inputs"].abs().max() < 1


def test_the_regressor_learns_and_the_split_is_the_arms(tmp_path: Path) -> None:
    config = regress.RegressConfig(canvas=16, coord_steps=150, evaluations=2)
    metrics = regress.trial(a_trial(tmp_path), "regress/quadrant-coordconv", config)
    assert metrics["train_error"] < metrics["guess_error"] / 2
    assert metrics["parameters"] == 906
    circular = regress.network("strided-circular", config)
    modes = {
        layer.padding_mode
        for layer in circular.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.padding[0]
    }
    assert modes == {"circular"}


def test_the_control_network_sees_the_whole_square() -> None:
    for radius in (1, 2, 3, 4, 6):
        net = paint.network("onehot", paint.PaintConfig(canvas=32, radius=radius))
        assert net(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
        field = sum(layer.kernel_size[0] - 1 for layer in net if isinstance(layer, torch.nn.Conv2d)) + 1
        assert field >= 2 * radius + 1


def test_vae_trains(tmp_path: Path) -> None:
    config = gan.VaeConfig(canvas=8, radius=1, steps=60, samples=50, evaluations=2)
    short = gan.VaeConfig(canvas=8, radius=1, steps=1, samples=50, evaluations=1)
    for arm in ("vae/coordconv", "vae/deconv"):
        trained = gan.variational(a_trial(tmp_path), arm, config)["bound"]
        assert trained < gan.variational(a_trial(tmp_path), arm, short)["bound"]


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    from PIL import Image

    for half in ("train", "val"):
        for k, name in enumerate(("n01", "n02")):
            folder = tmp_path / half / name
            folder.mkdir(parents=True)
            for j in range(4):
                Image.new("RGB", (40, 36), (200 * k, 30 * j, 90)).save(folder / f"{j}.png")
    return tmp_path


@pytest.mark.parametrize("arm", ["imagenet/conv", "imagenet/coordconv"])
def test_imagenet_trains_on_a_folder(arm: str, tiny_imagenet: Path) -> None:
    config = imagenet.ImagenetConfig(
        folder=str(tiny_imagenet), size=32, blocks=(1, 1, 1, 1), width=4, epochs=1, batch=4, workers=0
    )
    metrics = imagenet.trial(a_trial(tiny_imagenet), arm, config)
    assert 0 <= metrics["top1"] <= metrics["top5"] == 1
    extra = 2 * 4 * 49 if arm.endswith("coordconv") else 0  # two more channels into the 7x7 stem
    torch.manual_seed(0)
    assert metrics["parameters"] - extra == sum(
        p.numel() for p in imagenet.ResNet(2, (1, 1, 1, 1), 4).parameters()
    )


def test_missing_data_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"imagenet\.folder"):
        imagenet.folders(imagenet.ImagenetConfig())
    for change, message in (
        ({"imagenet.folder": str(tmp_path / "none")}, "imagenet.folder"),
        ({"gan.data": str(tmp_path / "none")}, "gan.data"),
        ({"mnist.source": str(tmp_path / "none")}, "mnist.source"),
        ({"detect.source": str(tmp_path / "none")}, "detect.source"),
    ):
        with pytest.raises(InputError, match=message):
            runner.run(STUDY, "smoke", changes=change, results=tmp_path, executor="inline")


def test_profiles_select_their_arms() -> None:
    laptop = STUDY.select_arms(extras=True)
    assert not any(arm.startswith("imagenet") for arm in laptop)
    assert {arm for arm in STUDY.all_arms if arm.startswith("imagenet")} <= set(
        STUDY.select_arms(extras=True, profile="paper")
    )
    assert not any(arm.startswith(("mnist", "detect")) for arm in STUDY.select_arms(profile="smoke"))


def test_figures_are_drawn_from_real_results(tmp_path: Path) -> None:
    results = runner.run(STUDY, "smoke", extras=True, executor="inline", results=tmp_path)
    assert [t.error for t in results.failed] == []
    drawn = {spec.name: spec.function(results) for spec in STUDY.figures}
    # the digits need an optional package, so the smoke profile leaves them out
    missing = {name for name, fig in drawn.items() if fig is None}
    assert missing == {"coordinate-weights"}
