from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.lab import registry, runner
from assay.lab.errors import InputError
from assay.lab.trial import Batch
from assay.studies.coconet import learn, samples

STUDY = registry.load("coconet")
SMOKE = STUDY.configure("smoke")


def batch(folder: Path, *pairs: tuple[str, int]) -> Batch:
    return Batch(
        list(pairs),
        study="coconet",
        profile="smoke",
        device="cpu",
        folder=folder,
        time_limit=60.0,
        report=None,
    )


def test_every_sampler_is_an_arm() -> None:
    assert {arm for arm in STUDY.all_arms if arm.startswith("sample/")} == set(samples.SAMPLERS)


def test_the_two_halves_share_no_piece() -> None:
    pieces = learn.corpus(SMOKE)
    ours, theirs = ({tuple(w.flatten().tolist()) for w in half} for half in (pieces.half, pieces.other_half))
    held_out = {tuple(w.flatten().tolist()) for w in torch.cat([pieces.test, pieces.valid])}
    assert ours
    assert not ours & theirs
    assert not (ours | theirs) & held_out
    assert pieces.half.shape[1:] == (SMOKE.window, 4)


def test_spread_and_silence() -> None:
    windows = torch.arange(100).view(100, 1, 1)
    assert learn.spread(windows, 4).flatten().tolist() == [0, 33, 66, 99]
    assert learn.spread(windows, 200) is windows
    quiet = learn.silenced(torch.full((200, 16, 4), 60), 0.2, torch.Generator().manual_seed(0))
    assert (quiet == -1).float().mean() == pytest.approx(0.2, abs=0.02)


def test_arms_differ_in_nothing_but_what_they_are_told_to(tmp_path: Path) -> None:
    """Same stream: same weights, batches and masks; the judge has its own."""
    pieces = learn.corpus(SMOKE)

    def weights(**options: object) -> dict[str, torch.Tensor]:
        run = batch(tmp_path, ("train/full", 3))
        net = learn.fit(run, "train/full", 3, SMOKE, pieces.half, pieces.valid, **options)  # type: ignore[arg-type]
        return net.state_dict()

    first, again, judge = weights(steps=3), weights(steps=3), weights(steps=3, stream="judge")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["convolutions.0.weight"], judge["convolutions.0.weight"])
    flat, blind = weights(steps=0, reweight=False), weights(steps=0, mask_input=False)
    start = weights(steps=0)
    assert torch.equal(flat["convolutions.1.weight"], start["convolutions.1.weight"])
    assert blind["convolutions.0.weight"].shape[1] == 4


def test_the_rate_halves_when_validation_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMOKE, patience=2, halvings=2)
    net = learn.network(config, mask_input=True, seed=0)
    plateau = learn._Plateau(net, config)
    x = config.codec().encode(learn.corpus(config).valid)
    first = plateau.look(x)
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        net.convolutions[-1].weight.mul_(-30.0)  # worse from here on
    factors = []
    for _ in range(6):
        assert plateau.look(x) > first
        factors.append(plateau.factor)
    assert factors == [1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert plateau.done
    assert all(torch.equal(plateau.best[name], kept[name]) for name in kept)
    assert net.training


def test_training_by_plateau_ends_early(tmp_path: Path) -> None:
    config = replace(SMOKE, schedule="plateau", validate_every=1, patience=1, halvings=1, learning_rate=0.0)
    pieces = learn.corpus(config)
    run = batch(tmp_path, ("train/full", 0))
    steps = []
    run.log = lambda step, **values: steps.append(step)  # type: ignore[method-assign]
    learn.fit(run, "train/full", 0, config, pieces.half, pieces.valid, steps=50)
    assert max(steps) < 10


def test_a_missing_source_is_named() -> None:
    with pytest.raises((InputError, ValueError), match="give --set source=PATH"):
        learn.check(STUDY.configure("paper", {"source": "/nowhere/Jsb16thSeparated.json"}))


def test_the_papers_network() -> None:
    config = STUDY.configure("paper")
    net = learn.network(config, mask_input=True, seed=0)
    assert len(net.convolutions) == 64
    # 3x3x128x128 in 61 hidden layers, 2x2 in the last two, and gains and shifts of the normalisation.
    assert sum(p.numel() for p in net.parameters()) == (
        9 * 8 * 128 + 61 * 9 * 128 * 128 + 4 * 128 * 128 + 4 * 128 * 4 + 2 * (63 * 128 + 4)
    )
    x = torch.zeros(1, 4, 8, 46)
    assert net.eval()(x, x.sum(-1) > 0).shape == x.shape


def test_smoke_draws_its_figures_and_saves_music(tmp_path: Path) -> None:
    results = runner.run(STUDY, "smoke", seeds=1, extras=True, executor="inline", results=tmp_path)
    assert not results.failed
    for spec in STUDY.figures:
        assert spec.function(results) is not None, spec.name
    for name in ("unconditional", "harmonised-soprano", "hybrid"):
        assert results.artifact("sample/gibbs", 0, f"{name}.mid")[:4] == b"MThd"
        assert results.artifact("sample/gibbs", 0, f"{name}.wav")[:4] == b"RIFF"
    tasks = results.artifact("sample/gibbs", 0, "tasks")
    for name in ("harmonise", "one voice", "middle", "chunks"):
        kept = ~tasks[f"{name} erased"].T.astype(bool)
        assert np.array_equal(tasks[name][kept], tasks["original"][kept])
        assert (tasks[name] >= 0).all()
    assert results.metric("sample/ancestral", "passes").tolist() == [64.0]
    assert results.metric("sample/gibbs", "passes").tolist() == [4.0]
