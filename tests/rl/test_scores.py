"""Reference scores: the tables that come along, and those of a user."""

from pathlib import Path

import pytest

from assay.rl.evaluate import human_normalised, mean_capped_normalised
from assay.rl.scores import atari_id, human_normalised_scores


def test_the_tables_are_whole() -> None:
    atari, lab = human_normalised_scores("atari57"), human_normalised_scores("dmlab30")
    assert (len(atari), len(lab)) == (57, 30)
    # Humans beat chance everywhere.
    assert all(human > random for table in (atari, lab) for random, human in table.values())
    # The figures of two games as Mnih et al. (2015) and Wang et al. (2016) print them.
    assert atari["breakout"] == (1.7, 30.5)
    assert human_normalised(401.2, *atari["breakout"]) == pytest.approx(13.87, abs=0.01)
    assert lab["rooms_watermaze"] == (4.065, 54)


def test_capped_means_of_a_users_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("task,random,human\nup, 0, 10  # my own\n\ndown -5 5\n", encoding="utf-8")
    table = human_normalised_scores(path)
    assert table == {"up": (0.0, 10.0), "down": (-5.0, 5.0)}
    assert mean_capped_normalised({"up": 30.0, "down": 0.0}, table) == pytest.approx(0.75)
    assert human_normalised_scores(table) == table
    assert human_normalised_scores(table) is not table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1\n", "line 1: a line is"),
        ("a,1,2\nb,x,3\n", "line 2: a line is"),
        ("a,1,2\na,1,3\n", "there twice"),
        ("a,1,1\n", "cannot be normalised"),
        ("# nothing\n", "holds no scores"),
    ],
)
def test_tables_that_do_not_read_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        human_normalised_scores(path)


def test_names() -> None:
    assert atari_id("ms_pacman") == "ALE/MsPacman-v5"
    assert atari_id("pong") == "ALE/Pong-v5"
    with pytest.raises(FileNotFoundError, match="atari57, dmlab30 or a file"):
        human_normalised_scores("atari100")


def test_every_game_is_known_to_the_emulator() -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="needs the extra assay[atari]")
    gymnasium.register_envs(pytest.importorskip("ale_py", reason="needs the extra assay[atari]"))
    known = set(gymnasium.registry)
    assert {atari_id(task) for task in human_normalised_scores("atari57")} <= known
