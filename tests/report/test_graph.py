"""The drawing of the pipeline's graph."""

from pathlib import Path

from mtbert.report.graph import BOX, Node, draw, read_graph

ROOT = Path(__file__).parents[2]


def test_every_arrow_leads_to_the_right_and_none_is_implied_by_others() -> None:
    graph = [Node("a", "", ["b", "c"]), Node("b", "", ["c"]), Node("c", "", [])]
    picture = draw(graph)
    (_, ax, ay), (_, bx, by), (_, cx, cy) = picture.boxes
    half = BOX[1] / 2
    assert picture.arrows == [(ax + BOX[0], ay + half, bx, by + half), (bx + BOX[0], by + half, cx, cy + half)]
    assert (picture.width, picture.height) == (cx + BOX[0], BOX[1])


def test_the_real_graph_has_every_stage_once_and_no_boxes_overlap() -> None:
    graph = read_graph(ROOT / "dvc.yaml")
    picture = draw(graph)
    assert sorted(name for name, *_ in picture.boxes) == sorted(node.name for node in graph)
    corners = [corner for _, *corner in picture.boxes]
    for x, y in corners:
        assert not [
            1 for left, top in corners if (left, top) != (x, y) and abs(left - x) < BOX[0] and abs(top - y) < BOX[1]
        ]
    assert all(start < end for start, _, end, _ in picture.arrows)
    assert all(node.description for node in graph)
