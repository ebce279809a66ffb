"""The paper's printed results. Keys are the names of rows in params.yaml, under tables and figures."""

from typing import NamedTuple


class Printed(NamedTuple):
    """A row of Table 1: overall, sentiment and paraphrase accuracy, STS correlation."""

    overall: float
    sst: float
    quora: float
    sts: float


# Table 1: title, split, printed row.
TABLE_1 = {
    "baseline": ("Baseline", "dev", Printed(0.494, 0.471, 0.390, 0.271)),
    "key_update_1": ("Key Update 1", "dev", Printed(0.670, 0.457, 0.778, 0.550)),
    "key_update_2": ("Key Update 2", "dev", Printed(0.681, 0.509, 0.784, 0.519)),
    "key_update_3": ("Key Update 3", "dev", Printed(0.717, 0.500, 0.872, 0.559)),
    "best_performance": ("Best Performance", "dev", Printed(0.779, 0.524, 0.874, 0.877)),
    "most_efficient": ("Most Efficient", "dev", Printed(0.757, 0.501, 0.846, 0.850)),
    "test_leaderboard": ("Test Leaderboard", "test", Printed(0.778, 0.524, 0.875, 0.871)),
}

# Table 2: concatenation, STS correlation.
TABLE_2 = {
    "u_v": ("(u, v)", 0.530),
    "u_v_diff": ("(u, v, |u−v|)", 0.559),
    "sum_diff": ("(|u+v|, |u−v|)", 0.553),
    "u_v_c": ("(u, v, c)", 0.877),
}

# Table 3: method, printed probabilities, overall score. Section 4.3 describes round robin, but the table does not list it.
TABLE_3 = {
    "sequential": ("Sequential", None, 0.767),
    "round_robin": ("Round Robin", None, None),
    "proportional": ("Proportional", (0.03, 0.95, 0.02), 0.773),
    "square_root": ("Square Root", (0.13, 0.76, 0.11), 0.779),
    "balanced": ("Balanced", (0.33, 0.33, 0.33), 0.748),
}

# Table 4: kind of mistake and the two questions; the model is Best Performance.
TABLE_4 = (
    ("FP", "Why computer vision is hard?", "Why computer vision is computationally hard?"),
    ("FN", "How is Donald Trump in person?", "What is Donald Trump like in person, away from the press/media?"),
    ("FP", "How do I fix a laptop that won't turn on?", "How do you fix an HP laptop that won't turn on?"),
)

# Figure 3: DoRA by rank, then the full model.
FIGURE_3 = {"r4": "r = 4", "r8": "r = 8", "r16": "r = 16", "r32": "r = 32", "full": "full"}

BEST = "best_performance"

# Figure 1: shares of (true, predicted) labels that section 6.1 prints.
FIGURE_1 = {(2, 1): 0.24, (2, 3): 0.32}

# Figure 3: of its points only these two are printed, in Table 1, and without their numbers of parameters.
FIGURE_3_OVERALL = {"r16": TABLE_1["most_efficient"][2].overall, "full": TABLE_1[BEST][2].overall}
SENTIMENTS = ("Negative", "Somewhat negative", "Neutral", "Somewhat positive", "Positive")


def title(key: str) -> str:
    """The title of a row in Table 1, which Table 4 and Figures 1, 2 and 4 use too; the key itself for any other row."""
    return TABLE_1[key][0] if key in TABLE_1 else key
