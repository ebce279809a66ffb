"""Learning curves as points of a chart."""

from pathlib import Path

from mtbert.report.curves import HEIGHT, WIDTH, charts
from mtbert.tasks.paper import TASKS


def test_points_are_on_one_scale_and_undefined_scores_are_left_out(tmp_path: Path) -> None:
    for run, rows in (("one", "0,0.5,\n2,1,0.25\n"), ("two", "0,0.5,-1\n1,0.5,0\n")):
        (tmp_path / run).mkdir()
        (tmp_path / run / "history.csv").write_text(f"epoch,dev_sst,dev_sts\n{rows}", encoding="utf-8")
    one, two = charts(tmp_path, ["one", "two"], TASKS)
    assert [(line.title, [point[:2] for point in line.points]) for line in one.lines] == [
        ("Sentiment", [(0, HEIGHT / 4), (WIDTH, 0)]),
        ("STS", [(WIDTH, HEIGHT * 3 / 8)]),
    ]
    assert two.lines[1].points[0][:2] == (0, HEIGHT), "the least score of all runs is at the bottom"
    assert one.levels == two.levels == [("0", HEIGHT / 2), ("0.5", HEIGHT / 4), ("1", 0)]
    assert one.description == "one, over 2 epochs: Sentiment 0.500 to 1.000; STS 0.250 to 0.250"


def test_a_run_without_a_sentiment_head_has_curves(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/history.csv").write_text("epoch,dev_sts\n0,0.5\n", encoding="utf-8")
    assert [line.title for line in charts(tmp_path, ["mine"], TASKS)[0].lines] == ["STS"]
